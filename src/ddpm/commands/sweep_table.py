"""After a sweep: a table of its runs by what differs between them."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from ddpm.base.program import shell_command
from ddpm.runs import launch


class SweepTable(Callback):
    """Prints each run with its last metrics, and the command of the report. It imports packages when the sweep ends."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        from ddpm.commands.summary import read_metrics
        from ddpm.config.run_settings import differing_settings, read_config, run_labels
        from ddpm.evaluation.table import titled_table
        from ddpm.report.runs import runs_below

        sweep = Path(config.hydra.sweep.dir)
        folders = list(runs_below(sweep)) if launch.is_first_process() else []
        if len(folders) < 2:
            return
        columns, _ = differing_settings([read_config(folder) for folder in folders])
        names = run_labels(columns, [str(folder.relative_to(sweep)) for folder in folders])
        last = [{name: f"{points[-1][1]:.5g}" for name, points in read_metrics(each).items()} for each in folders]
        rows = {str(each): {"settings": name, **found} for each, name, found in zip(folders, names, last, strict=True)}
        print(f"\n{titled_table(rows)}\nnext:\n  {shell_command('ddpm')} report {sweep}", flush=True)
