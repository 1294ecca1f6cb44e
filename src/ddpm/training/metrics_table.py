"""metrics.csv: one row per step, written when the next step begins, and continued when the run is resumed."""

import csv
import io
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from ddpm.base.atomic import write_atomically


class MetricsTable(Logger):
    """A CSV logger. Lightning's writes a row per call, buffers rows, and deletes the file of a run that it resumes.

    save_dir: the run's folder. Several callbacks log numbers of a step, so its row is written when another step begins
    or a checkpoint is saved, and may still get more numbers after that.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self.fields: list[str] = ["step"]
        self.row: dict[str, Any] = {}
        self.grown = False  # whether the row has numbers that are not on the disk
        self.on_disk = False  # whether the row was written once
        self.torn = False  # whether the last write failed
        self.unwritten: list[dict[str, Any]] = []  # rows whose writing failed

    name = "csv"
    version = ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the run's folder contains the configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if self.row and self.row["step"] != step:
            self.save()
            if self.grown:
                self.unwritten.append(self.row)
            self.row, self.on_disk = {}, False
        self.row |= {"step": step, **metrics}
        self.grown = True

    @rank_zero_only
    def continue_from(self, step: int) -> None:
        """Keep the rows up to `step`, and drop later ones, which will be logged again. The row of `step` may get more
        numbers. At step 0 the file belongs to another run, and is renamed.
        """
        if not self.path.exists():
            return
        if step == 0:
            self.path.rename(self.path.with_name(f"{self.path.name}.aside"))
            return
        with open(self.path, newline="") as file:
            reader = csv.DictReader(file)
            self.fields = list(reader.fieldnames or ["step"])
            rows = [row for row in reader if is_complete_row(row) and int(row["step"]) <= step]
        if rows and int(rows[-1]["step"]) == step:
            self.row = {field: value for field, value in rows[-1].items() if value} | {"step": step}
            self.on_disk, self.grown = True, False
        self.rewrite(rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()

    @rank_zero_only
    def save(self) -> None:
        """Append the row. If it was written before, or has a new column, the file is rewritten."""
        if not self.grown:
            return
        new = [field for field in self.row if field not in self.fields]
        self.fields += new
        rows = [*self.unwritten, self.row]
        try:
            if new or self.on_disk or self.torn or not self.path.exists():
                steps = {str(row["step"]) for row in rows}
                self.rewrite([*(row for row in self.rows_on_disk() if row["step"] not in steps), *rows])
            else:
                with open(self.path, "a", newline="") as file:
                    file.write(csv_lines(self.fields, rows))
        except OSError as error:
            self.torn = True  # the last line in the file may be incomplete
            rank_zero_warn(f"{self.path} could not be written: {error}; its rows are kept and written later")
            return
        self.unwritten, self.on_disk, self.grown, self.torn = [], True, False, False

    def rows_on_disk(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with open(self.path, newline="") as file:
            return [row for row in csv.DictReader(file) if is_complete_row(row)]

    def rewrite(self, rows: list[dict[str, Any]]) -> None:
        write_atomically(
            self.path, csv_lines(self.fields, [dict(zip(self.fields, self.fields, strict=True)), *rows]).encode()
        )


def csv_lines(fields: list[str], rows: list[dict[str, Any]]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, fields, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue()


def is_complete_row(row: dict[str | None, Any]) -> bool:
    """Whether a row is complete; the last row of a killed run may not be."""
    return None not in row and None not in row.values() and str(row["step"]).isdigit()
