"""metrics.csv: one row per step, written when the next step begins, and continued when the run is resumed."""

import csv
import io
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from ddpm.base.atomic import set_aside, write_atomically
from ddpm.base.tables import read_steps


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
        if not os.path.lexists(self.path):
            if step > 0:
                rank_zero_warn(f"{self.path} does not exist, so it gets the values after step {step} only")
            return
        if step == 0:
            set_aside(self.path)
            return
        rows = [row for row in self.rows_on_disk() if int(row["step"]) <= step]
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
        """The readable rows. A file with others is set aside first, except for a row that a failed write truncated."""
        if not os.path.lexists(self.path):
            return []
        try:
            columns, rows, unreadable = read_steps(self.path)
            problem = f"{self.path} has rows that cannot be read ({unreadable})" if unreadable > self.torn else None
        except ValueError as error:
            columns, rows, problem = ["step"], [], str(error)
        self.fields = list(dict.fromkeys([*columns, *self.fields]))
        if problem:
            aside = set_aside(self.path)
            rank_zero_warn(f"{problem}; it is kept as {aside}, and the run continues with {len(rows)} readable rows")
        return rows

    def rewrite(self, rows: list[dict[str, Any]]) -> None:
        head = dict(zip(self.fields, self.fields, strict=True))
        write_atomically(self.path, csv_lines(self.fields, [head, *rows]).encode())


def csv_lines(fields: list[str], rows: list[dict[str, Any]]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, fields, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue()
