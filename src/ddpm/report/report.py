"""Everything that the page shows of some runs, read and compared, before any of it is HTML."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ddpm.report.album import Album, album
from ddpm.report.command import command, derived, sweep
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
    sweep: str | None = None  # the command that trains them all


def read(folders: Sequence[Path]) -> Report:
    runs = [read_run(folder) for folder in find_runs(folders)]
    found = differences([run.config for run in runs])
    with ThreadPoolExecutor(4) as pool:  # decoding pictures takes most of the time, and holds no lock
        albums = list(pool.map(lambda run: album(run, len(runs)), runs))
    typed = [run.overrides for run in runs if run.overrides is not None]
    swept = sweep(typed) if len(typed) == len(runs) else None
    return Report(
        runs,
        found,
        labels(found, [run.name for run in runs]),
        comparisons((number, result) for number, run in enumerate(runs) for result in run.results),
        albums,
        [command_of(run) for run in runs],
        command(swept) if swept else None,
    )


def command_of(run: Run) -> str | None:
    words = run.overrides
    if words is None:
        try:
            words = derived(run.config)
        except (HydraException, OmegaConfBaseException, OSError, YAMLError) as error:
            run.notes.append(f"Its command cannot be put together: {error}.")
    if run.overrides is None and words is not None:
        run.notes.append("What was typed is not stored; its command is put together from its settings.")
    return None if words is None else command(words)
