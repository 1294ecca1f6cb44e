"""Tables as CSV files."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ddpm.base.atomic import write_atomically
from ddpm.base.untrusted import text_file

STEP = re.compile(r"[0-9]{1,15}", re.ASCII)


class StepTable(NamedTuple):
    """columns: names, among them `step`. rows: the readable rows, in the order of the file. unreadable: number of other
    rows, such as the truncated last one of a killed run."""

    columns: list[str]
    rows: list[dict[str, str]]
    unreadable: int


def read_steps(path: Path) -> StepTable:
    """Read metrics.csv. Raises ValueError with the file's name if it is not a table with a column `step`."""
    text = text_file(path)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except csv.Error as error:
        raise ValueError(f"{path} is not a table: {error}") from None
    columns = rows.pop(0) if rows else ["step"]
    if "step" not in columns or len(set(columns)) < len(columns):
        raise ValueError(f"{path} must have a column 'step', and columns of different names")
    whole = rows if text.endswith("\n") else rows[:-1]
    step = columns.index("step")
    good = [row for row in whole if len(row) == len(columns) and STEP.fullmatch(row[step])]
    return StepTable(columns, [dict(zip(columns, row, strict=True)) for row in good], len(rows) - len(good))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a header and the rows. The columns are the keys of all rows, in the order in which they first appear."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
