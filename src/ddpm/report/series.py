"""metrics.csv as columns of numbers. What cannot be read is counted and reported, never guessed."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ddpm.base.tables import read_steps

MAX_COLUMNS = 2_000
LARGEST = 1e30  # largest value that can be summed and drawn


@dataclass
class Series:
    """steps: int64 `[N]`, ascending. values: float64 `[N]` by column, NaN if a row has no number.

    not_finite: by column, the steps with NaN, infinity or values beyond 1e30. unreadable: number of skipped rows, such
    as the truncated last one of a killed run.
    """

    steps: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    values: dict[str, np.ndarray] = field(default_factory=dict)
    not_finite: dict[str, np.ndarray] = field(default_factory=dict)
    unreadable: int = 0

    @property
    def last_step(self) -> int | None:
        return int(self.steps[-1]) if len(self.steps) else None

    @property
    def minutes(self) -> float | None:
        """Minutes of training until the last logged step, with pictures and validation; None if no rates are logged."""
        columns = ("sys/steps_per_second", "sys/seconds_between_steps")
        rate, between = (self.values.get(name, self.steps * np.nan) for name in columns)
        known = np.isfinite(rate) & np.isfinite(between) & (rate > 0)
        seconds = np.diff(self.steps[known], prepend=0) * (1 / rate[known] + between[known])
        return float(seconds.sum()) / 60 if known.any() else None

    def points(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of a column at its finite numbers; both empty if there is no such column."""
        values = self.values.get(name, np.full(len(self.steps), np.nan))
        finite = np.isfinite(values)
        return self.steps[finite], values[finite]

    def has(self, name: str) -> bool:
        return name in self.not_finite or len(self.points(name)[0]) > 0


def read_series(path: Path) -> Series:
    """Read metrics.csv. Raises ValueError with the file's name if it is not a table of steps."""
    columns, rows, unreadable = read_steps(path)
    if len(columns) > MAX_COLUMNS:
        raise ValueError(f"{path} must have at most {MAX_COLUMNS:,} columns")
    rows.sort(key=lambda row: int(row["step"]))
    series = Series(np.array([int(row["step"]) for row in rows], dtype=np.int64), unreadable=unreadable)
    for name in columns if rows else ():
        found = [parse_number(row[name]) if row[name] else None for row in rows]
        values = np.array(found, dtype=np.float64)  # None becomes NaN
        values[np.abs(values) > LARGEST] = np.nan
        odd = [k for k in np.flatnonzero(~np.isfinite(values)) if found[k] is not None]
        series.values |= {name: values} if name != "step" else {}
        series.not_finite |= {name: series.steps[odd]} if odd else {}
    return series


def parse_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def smooth(values: np.ndarray, num_windows: int = 25) -> np.ndarray:
    """Moving average over a centred window of 1/num_windows of the rows; the window is smaller at both ends."""
    index = np.arange(len(values))
    reach = np.minimum(max(1, len(values) // num_windows // 2), np.minimum(index, index[::-1]))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)


def thin(steps: np.ndarray, values: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Reduce to about `num` points: the minimum and maximum of each interval, so that no peak is lost."""
    parts = np.array_split(np.arange(len(steps)), max(1, num // 2))
    kept = {0, len(steps) - 1, *(part[f(values[part])] for part in parts for f in (np.argmin, np.argmax) if len(part))}
    return (steps[sorted(kept)], values[sorted(kept)]) if len(steps) > num else (steps, values)
