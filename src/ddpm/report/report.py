"""Read and compare runs: all content of the page, without HTML."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ddpm.config.run_settings import Columns, differing_settings, run_labels
from ddpm.report.pictures import MAX_BYTES, Picture, album
from ddpm.report.results import Row, comparisons
from ddpm.report.runs import Run, find_runs, read_run
from ddpm.report.settings import CONF, derive_overrides, sweep_command, train_command


@dataclass
class Report:
    """labels, albums, commands: one per run. failed: runs with nothing to compare, by label; if all have, they are
    `runs`. columns: settings that differ. common: settings that all runs share.

    comparisons: results by protocol. sweep: one command that trains all runs, or empty.
    """

    runs: list[Run]
    failed: dict[str, Run]
    labels: list[str]
    columns: Columns
    common: dict[str, str]
    comparisons: list[tuple[dict[str, Any], list[Row]]]
    albums: list[dict[str, list[Picture]]]
    commands: list[str]
    sweep: str


def read_report(folders: Sequence[Path]) -> Report:
    found = [read_run(folder) for folder in find_runs(folders)]
    runs = [run for run in found if not run.failure] or found
    swept = sweep_command([run.overrides or [] for run in runs])
    every_label = run_labels(differing_settings([run.config for run in found])[0], [run.name for run in found])
    failed = {label: run for label, run in zip(every_label, found, strict=True) if run not in runs}
    columns, common = differing_settings([run.config for run in runs])
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
    return Report(runs, failed, names, columns, common, places, albums, commands, swept)
