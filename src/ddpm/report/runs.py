"""Read a run folder. Missing or damaged parts become sentences in its notes."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ddpm.checkpoint.folder import list_checkpoints, step_of
from ddpm.config.run_settings import Config, read_config, resolve_reference
from ddpm.metrics.protocol import Result
from ddpm.report.results import read_results
from ddpm.report.series import Series, read_series
from ddpm.report.settings import read_overrides
from ddpm.runs.lease import read_lease

MAX_DEPTH = 6
SIGNS = ("checkpoints/config.yaml", "metrics.csv")  # every run has one of these
PARAMETERS = re.compile(r": ([\d,]+(?: and [\d,]+ \(\w+\))*) parameters, ")  # in the first lines of train.log


@dataclass
class Run:
    """name: its folder, with the folder of the sweep if it is a number. parameters: those of each network, as text.
    notes: sentences about problems. failure: why there is nothing to compare, or empty."""

    folder: Path
    name: str
    config: Config = field(default_factory=dict)
    overrides: list[str] | None = None  # None if they are not stored
    series: Series = field(default_factory=Series)
    results: list[Result] = field(default_factory=list)
    parameters: str | None = None
    failure: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def last_step(self) -> int | None:
        """Of the newest checkpoint or row of metrics.csv. An interrupted run saves steps after its last row."""
        steps = [self.series.last_step, *map(step_of, list_checkpoints(self.folder / "checkpoints")[:1])]
        return max((step for step in steps if step is not None), default=None)


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """All runs in the folders, each once, sweeps in order. Raises ValueError for a folder without runs."""
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder} must be the folder of a run, a sweep or several runs; there is no such folder")
        here = {each.resolve(): each for each in runs_below(folder)}
        if not here:
            raise ValueError(f"{folder} contains no run: a run is a folder with checkpoints/ and {' or '.join(SIGNS)}")
        found |= here
    return list(found.values())


def runs_below(folder: Path) -> Iterator[Path]:
    """Runs at or below a folder, in numerical order. Hidden folders, links and subfolders of runs are not searched."""
    for place, names, _ in os.walk(folder):
        here = Path(place)
        is_run = "checkpoints" in names and any((here / file).is_file() for file in SIGNS)
        ends = is_run or len(here.relative_to(folder).parts) >= MAX_DEPTH
        shown = (name for name in names if not name.startswith("."))
        names[:] = [] if ends else sorted(shown, key=lambda name: name.zfill(20) if name.isdigit() else name)
        if is_run:
            yield here


def read_run(folder: Path) -> Run:
    path = folder.resolve()
    run = Run(folder, f"{path.parent.name}/{path.name}" if path.name.isdigit() else path.name)
    for name, read, file, shown in (
        ("config", read_config, "", "Its settings cannot be read"),
        ("overrides", read_overrides, "", "Its command is not known"),
        ("series", read_series, "metrics.csv", "Its logged values cannot be read"),
        ("parameters", read_parameters, "train.log", "Its train.log cannot be read"),
    ):
        try:
            setattr(run, name, read(folder / file))
        except (ValueError, OSError) as error:
            run.notes.append(f"{shown}: {error}.".replace(f"{folder}/", ""))
    run.results, failed = read_results(folder)
    most, last = resolve_reference(run.config, "trainer.max_steps"), run.last_step or 0
    lease = read_lease(folder / ".lease")
    if type(most) is not int or last < most:
        is_at_work = lease is not None and not lease.has_ended(time.time())
        odd = sorted(path.stem for path in (folder / "nonfinite").glob("[0-9]*.pt"))
        if odd:
            run.failure = f"The loss became NaN or infinite at step {odd[-1].lstrip('0') or '0'}."
        elif not is_at_work and run.series.last_step is None and not run.results:
            run.failure = "It ended before it logged a value."
        elif last and type(most) is int:
            run.notes.append(f"It {'is' if is_at_work else 'ended'} at step {last:,} of {most:,}.")
    run.notes += [*describe_state(run), *failed]
    return run


def read_parameters(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open(errors="replace") as file:
        found = PARAMETERS.search(file.read(2**16))
    return found[1] if found else None


def describe_state(run: Run) -> Iterator[str]:
    series = run.series
    if len(series.steps) == 0 and not series.unreadable and not any("metrics.csv" in note for note in run.notes):
        yield "Its metrics.csv has no rows yet."
    if len(series.steps) == 1:
        yield "Its metrics.csv has a single row, so its curves are points."
    if series.unreadable:
        yield f"Skipped rows of its metrics.csv that cannot be read: {series.unreadable:,}."
    if series.not_finite:
        odd = [f"{name} ({len(steps):,}, first at step {steps[0]:,})" for name, steps in series.not_finite.items()]
        yield f"NaN, infinite or beyond 1e30, marked by crosses: {', '.join(odd[:5])}{' and more' if odd[5:] else ''}."
