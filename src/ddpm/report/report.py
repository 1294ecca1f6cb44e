"""Read and compare runs: all content of the page, without HTML."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ddpm.report.pictures import MAX_BYTES, Picture, album
from ddpm.report.results import Row, comparisons
from ddpm.report.runs import Run, find_runs, read_run
from ddpm.report.settings import (
    CONF,
    Columns,
    derive_overrides,
    differing_settings,
    run_labels,
    sweep_command,
    train_command,
)


@dataclass
class Report:
    """labels, albums, commands: one per run. columns: settings that differ. common: settings that all runs share.

    comparisons: results by protocol. sweep: one command that trains all runs, or empty.
    """

    runs: list[Run]
    labels: list[str]
    columns: Columns
    common: dict[str, str]
    comparisons: list[tuple[dict[str, Any], list[Row]]]
    albums: list[dict[str, list[Picture]]]
    commands: list[str]
    sweep: str


def read_report(folders: Sequence[Path]) -> Report:
    runs = [read_run(folder) for folder in find_runs(folders)]
    columns, common = differing_settings([run.config for run in runs])
    swept = sweep_command([run.overrides or [] for run in runs])
    for run in runs:
        if run.overrides is None and run.config and (CONF / "train.yaml").is_file():
            try:
                run.overrides = derive_overrides(run.config)
                run.notes.append("Its overrides are not stored; its command is derived from its settings.")
            except (HydraException, OmegaConfBaseException, YAMLError) as error:
                reason = str(error).splitlines()[0]
                run.notes.append(f"Its overrides are not stored, and conf/ cannot be composed: {reason}.")
    commands = ["" if run.overrides is None else train_command(run.overrides) for run in runs]
    names = run_labels(columns, [run.name for run in runs])
    places = comparisons(Row(number, result) for number, run in enumerate(runs) for result in run.results)
    with ThreadPoolExecutor(4) as pool:  # decoding pictures takes most of the time and releases the GIL
        albums = list(pool.map(lambda run: album(run.folder, MAX_BYTES // len(runs)), runs))
    return Report(runs, names, columns, common, places, albums, commands, swept)
