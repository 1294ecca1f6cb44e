"""A run's folder as one value. Whatever is missing or broken in it becomes a sentence among its notes."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ddpm.metrics.protocol import Result
from ddpm.report.pictures import Drawn, drawn
from ddpm.report.results import Unreadable, read_results
from ddpm.report.series import Series, read_series
from ddpm.report.settings import followed, read_config, read_overrides

MAX_DEPTH = 6
MAX_FOLDERS = 20_000
TIME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")


@dataclass
class Run:
    """One training run as its folder tells it.

    name: its folder, with the sweep's where that is a number. grids: sample grids by weights (`ema`, `raw`), each by
    step. overrides: what was typed, None where it is not stored. notes: what a reader must know, in sentences.
    """

    folder: Path
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] | None = None
    series: Series = field(default_factory=Series)
    results: list[Result] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    grids: dict[str, list[Drawn]] = field(default_factory=dict)
    strips: list[Drawn] = field(default_factory=list)
    begun: datetime | None = None
    changed: datetime | None = None
    notes: list[str] = field(default_factory=list)

    def setting(self, key: str) -> Any:
        return followed(self.config, key)

    @property
    def max_steps(self) -> int | None:
        value = self.setting("trainer.max_steps")
        return value if type(value) is int and value > 0 else None

    @property
    def is_short(self) -> bool:
        """Whether it has not reached the steps that it was to make, as far as its table says."""
        last = self.series.last_step
        return self.max_steps is not None and last is not None and last < self.max_steps


def is_run(folder: Path) -> bool:
    checkpoints = folder / "checkpoints"
    return checkpoints.is_dir() and ((folder / "metrics.csv").is_file() or (checkpoints / "config.yaml").is_file())


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """Every run in the folders, each once, sweeps in their order. ValueError names a folder that holds none."""
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder} must be the folder of a run, a sweep or several runs, and is not there")
        here = list(below(folder))
        if not here:
            raise ValueError(
                f"{folder} holds no run: a run is a folder with checkpoints/ and metrics.csv, or with "
                "checkpoints/config.yaml; runs/ has those of train.py"
            )
        for each in here:
            found.setdefault(each.resolve(), each)
    return list(found.values())


def below(folder: Path) -> Iterator[Path]:
    """Runs at a folder or under it. Hidden folders are passed over, links are not followed, runs hold no runs."""
    for visited, (place, names, _) in enumerate(os.walk(folder)):
        here = Path(place)
        if visited >= MAX_FOLDERS:
            raise ValueError(f"{folder} has more than {MAX_FOLDERS:,} folders; name the runs that are meant")
        if is_run(here):
            yield here
        deep = len(here.relative_to(folder).parts) >= MAX_DEPTH
        passed_over = is_run(here) or deep
        names[:] = [] if passed_over else sorted((n for n in names if not n.startswith(".")), key=by_number)


def by_number(name: str) -> tuple[int, str]:
    """Sorts 2 before 10."""
    return (int(name), "") if name.isascii() and name.isdigit() and len(name) < 10 else (10**9, name)


def read_run(folder: Path) -> Run:
    path = folder.resolve()
    run = Run(folder, f"{path.parent.name}/{path.name}" if path.name.isdigit() else path.name)
    attempts = (
        ("config", read_config, folder, "Its settings cannot be read"),
        ("overrides", read_overrides, folder, "Its command is not known"),
        ("series", read_series, folder / "metrics.csv", "Its numbers cannot be read"),
    )
    for name, read, place, told in attempts:
        if name == "series" and not place.exists():
            run.notes.append("It has no metrics.csv, so there are no curves of it.")
            continue
        try:
            setattr(run, name, read(place))
        except (ValueError, OSError) as error:
            run.notes.append(f"{told}: {error}.".replace(f"{folder}/", ""))
    run.results, run.unreadable = read_results(folder)
    samples = folder / "samples"
    if samples.is_dir():
        names = sorted(each.name for each in samples.iterdir() if each.is_dir() and not each.name.startswith("."))
        run.grids = {name: grids for name in names[:8] if (grids := drawn(samples / name))}
    run.strips = drawn(folder / "denoising")
    run.begun, run.changed = times(path)
    run.notes += [*state(run), *odd_numbers(run.series)]
    return run


def times(folder: Path) -> tuple[datetime | None, datetime | None]:
    """When it began, by its folder's name or else by its settings, and when its numbers last changed."""
    named = TIME.search(folder.name) or TIME.search(folder.parent.name)
    begun = None
    if named:
        try:
            begun = datetime.strptime(named[0], "%Y-%m-%d_%H-%M-%S")
        except ValueError:
            begun = None
    files = [path for path in (folder / "checkpoints" / "config.yaml", folder / "metrics.csv") if path.is_file()]
    changes = [datetime.fromtimestamp(path.stat().st_mtime) for path in files]
    return begun or min(changes, default=None), max(changes, default=None)


def state(run: Run) -> Iterator[str]:
    num_rows = len(run.series.steps)
    is_read = not any("metrics.csv" in note for note in run.notes)
    if run.is_short:
        yield (
            f"It is at step {run.series.last_step:,} of {run.max_steps:,}: still training, or ended before its time."
        )
    if num_rows == 0 and is_read and not run.series.unreadable:
        yield "Its metrics.csv has no rows yet."
    elif num_rows == 1:
        yield "Its metrics.csv has a single row, so its curves are points."


def odd_numbers(series: Series) -> Iterator[str]:
    if series.unreadable:
        some = "1 row" if series.unreadable == 1 else f"{series.unreadable:,} rows"
        yield f"{some} of its metrics.csv could not be read and {'is' if series.unreadable == 1 else 'are'} left out."
    for name, steps in list(series.not_finite.items())[:5]:
        times = "once" if len(steps) == 1 else f"{len(steps):,} times"
        yield f"{name} was NaN or infinite {times}, first at step {steps[0]:,}; a cross marks these steps."
    if len(series.not_finite) > 5:
        yield f"So were numbers of {len(series.not_finite) - 5} other columns."
