"""metrics.csv as columns of numbers. What cannot be read is counted and told, never guessed."""

import csv
import io
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ddpm.untrusted import text_file

MAX_BYTES = 100 * 2**20
MAX_COLUMNS = 2_000


@dataclass
class Series:
    """steps: int64 `[N]`, ascending. values: float64 `[N]` by column, NaN where a row has no number for it.

    not_finite: by column, the steps at which the file has NaN or infinity. unreadable: rows left out, as the torn last
    one of a killed run.
    """

    steps: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    values: dict[str, np.ndarray] = field(default_factory=dict)
    not_finite: dict[str, np.ndarray] = field(default_factory=dict)
    unreadable: int = 0

    def points(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of a column where it has a finite number; both empty where there is no such column."""
        values = self.values.get(name, np.full(len(self.steps), np.nan))
        there = np.isfinite(values)
        return self.steps[there], values[there]

    @property
    def names(self) -> list[str]:
        """Columns with at least one finite number."""
        return [name for name in self.values if len(self.points(name)[0])]

    @property
    def last_step(self) -> int | None:
        return int(self.steps[-1]) if len(self.steps) else None


def read_series(path: Path) -> Series:
    """ValueError, with the file's name, where it is no table with a column of steps."""
    reader = csv.reader(io.StringIO(text_file(path, MAX_BYTES), newline=""))
    try:
        rows = list(reader)
    except csv.Error as error:
        raise ValueError(f"{path.name} is not a table: {error}") from None
    if not rows:
        return Series()
    names = rows[0]
    if "step" not in names:
        raise ValueError(f"{path.name} has no column 'step', so it is not the table of a training run")
    if len(names) > MAX_COLUMNS:
        raise ValueError(f"{path.name} must have at most {MAX_COLUMNS:,} columns, and has {len(names):,}")
    place = names.index("step")
    good = [row for row in rows[1:] if len(row) == len(names) and is_step(row[place])]
    good.sort(key=lambda row: int(row[place]))
    series = Series(np.array([int(row[place]) for row in good], dtype=np.int64))
    series.unreadable = sum(bool(row) for row in rows[1:]) - len(good)
    for column, name in enumerate(names):
        if name == "step":
            continue
        values, given = numbers([row[column] for row in good])
        series.values[name] = values
        odd = given & ~np.isfinite(values)
        if odd.any():
            series.not_finite[name] = series.steps[odd]
    return series


def is_step(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16


def numbers(cells: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Float64 `[N]`, NaN for an empty cell and for a text, and bool `[N]`, whether the cell has a number."""
    try:
        values = np.array([float(cell) if cell else math.nan for cell in cells], dtype=np.float64)
        given = np.array([cell != "" for cell in cells], dtype=bool)
    except ValueError:
        found = [number(cell) for cell in cells]
        values = np.array([math.nan if value is None else value for value in found], dtype=np.float64)
        given = np.array([value is not None for value in found], dtype=bool)
    return values, given


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def smoothed(values: np.ndarray, num_windows: int = 25) -> np.ndarray:
    """Mean over a centred window of 1/num_windows of the rows, which narrows towards both ends."""
    half = max(1, len(values) // num_windows) // 2 or 1
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    reach = np.minimum(half, np.minimum(index, len(values) - 1 - index))
    return (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)


def thinned(steps: np.ndarray, values: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """At most about num points: of each stretch its least and its greatest value, so that no peak is lost."""
    if len(steps) <= num:
        return steps, values
    kept: set[int] = {0, len(steps) - 1}
    for part in np.array_split(np.arange(len(steps)), max(1, num // 2)):
        kept |= {int(part[np.argmin(values[part])]), int(part[np.argmax(values[part])])}
    chosen = np.array(sorted(kept))
    return steps[chosen], values[chosen]
