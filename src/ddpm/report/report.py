"""Everything that the page shows of some runs, read and compared, before any of it is HTML."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ddpm.report.album import Album, album
from ddpm.report.command import command, derived
from ddpm.report.differences import Differences, differences, labels
from ddpm.report.results import Comparison, comparisons
from ddpm.report.runs import Run, find_runs, read_run


@dataclass
class Report:
    """labels, albums, commands: one a run. A command is None where a run's settings are not known."""

    runs: list[Run]
    differences: Differences
    labels: list[str]
    comparisons: list[Comparison]
    albums: list[Album]
    commands: list[str | None] = field(default_factory=list)


def read(folders: Sequence[Path]) -> Report:
    runs = [read_run(folder) for folder in find_runs(folders)]
    found = differences([run.config for run in runs])
    return Report(
        runs,
        found,
        labels(found, [run.name for run in runs]),
        comparisons((number, result) for number, run in enumerate(runs) for result in run.results),
        [album(run, len(runs)) for run in runs],
        [command_of(run) for run in runs],
    )


def command_of(run: Run) -> str | None:
    words = derived(run.config) if run.overrides is None else run.overrides
    if run.overrides is None and words is not None:
        run.notes.append("What was typed is not stored; its command is put together from its settings.")
    return None if words is None else command(words)
