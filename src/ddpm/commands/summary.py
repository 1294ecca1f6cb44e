"""The last lines of a training: what was done, where the files lie, the metrics, and the next commands."""

import re
import shlex
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from ddpm.base.program import shell_command
from ddpm.base.progress import clock
from ddpm.checkpoint.folder import list_checkpoints, step_of
from ddpm.metrics.score import lower_is_better
from ddpm.model.diffusion_model import no_samples, tasks_with_images
from ddpm.report.series import read_series
from ddpm.runs.arguments import quote
from ddpm.runs.console import say
from ddpm.training.callbacks.time_limit import TimeLimit
from ddpm.training.metrics_table import MetricsTable
from ddpm.training.module import DiffusionModule
from ddpm.training.wandb_run import sync_command


def find_cause(config: DictConfig, trainer: Trainer) -> str:
    """The setting that ended a training before its last step. Unknown if the training ran in spawned processes."""
    ended = {
        "fast_dev_run": trainer.fast_dev_run,
        "limit_train_batches": trainer.limit_train_batches == 0,
        "max_time": any(isinstance(each, TimeLimit) and each.time_remaining() <= 0 for each in trainer.callbacks),
        "max_epochs": not trainer.should_stop and 0 <= trainer.max_epochs <= trainer.current_epoch,
    }
    found = [f"trainer.{name}={config.trainer.get(name)}" for name, did in ended.items() if did]
    return found[0] if found else "a callback or another limit"


@rank_zero_only
def print_summary(
    config: DictConfig, module: DiffusionModule, trainer: Trainer, resumed: Path | None, first_step: int, seconds: float
) -> None:
    """Print steps, files, metrics and next commands of this run, after its loggers are finalized. The step is read from
    the folder, because spawned processes do not report it."""
    folder, max_steps = Path(config.run_dir) / "checkpoints", config.trainer.max_steps
    step = max(map(step_of, list_checkpoints(folder)), default=first_step)
    done = f"{step:,} of {max_steps:,} steps" if step < max_steps else f"{step:,} steps"
    images = f"{(step - first_step) * config.data.batch_size:,} images"
    images = f"; this run started at step {first_step:,} and used {images}" if resumed else f", {images}"
    why = f"; {find_cause(config, trainer)} ended the training" if step < max_steps else ""
    say(f"\ndone: {done}{images}{why}, in {clock(seconds)}")
    lines = {"checkpoint": str(folder / "last.ckpt" if list_checkpoints(folder) else resumed)}
    pictures = ("samples/ema", "samples/raw", "denoising", "reconstructions")
    lines |= {name: f"{config.run_dir}/{name}/{step:08d}.png" for name in pictures}
    commands = next_commands(config, module)
    for logger in trainer.loggers:
        if isinstance(logger, MetricsTable):
            lines["metrics"] = str(logger.path)
        elif isinstance(logger, WandbLogger):
            lines["W&B"] = logger.experiment.dir
            if logger.experiment.settings.mode == "offline":
                commands.append(sync_command(logger.experiment))
        elif isinstance(logger, TensorBoardLogger):
            lines["TensorBoard"] = logger.log_dir
    for name, where in lines.items():
        if Path(where).exists():
            say(f"  {name:{max(map(len, lines))}} {where}")
    for failure in (each for callback in trainer.callbacks for each in getattr(callback, "failures", ())):
        say(failure)
    values = [best_and_last(name, known) for name, known in read_metrics(Path(config.run_dir)).items()]
    for line in [*(["", *values] if values else []), "", "next:", *(f"  {command}" for command in commands)]:
        say(line)


def next_commands(config: DictConfig, module: DiffusionModule) -> list[str]:
    folder = config.run_dir
    report = f"{shell_command('ddpm')} report {shlex.quote(folder)}"
    ckpt = quote(f"ckpt={folder}", shell=True) if re.search(r"[^\w/.:-]", folder) else f"ckpt={folder}"
    evaluate = f"{shell_command('ddpm')} evaluate {ckpt} metric="
    if getattr(module.network, "reconstructs", False):
        return [f"{evaluate}reconstruction", report]
    if no_samples(module.network):
        return [report]
    task = "".join(f" {word.strip(',')}" for word in tasks_with_images(module.model).split()[:1])
    if task and not config.data.num_val:
        task += " task.split=train"  # some tasks take held-out images by default
    return [f"{shell_command('ddpm')} sample {ckpt}{task}", f"{evaluate}fid", report]


def read_metrics(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of the validation loss and the evaluations of a run, by name; those that are finite."""
    if not (run / "metrics.csv").exists():
        return {}
    series = read_series(run / "metrics.csv")
    names = [name for name in series.values if re.match("val/loss$|eval/", name) and not name.endswith("_error")]
    points = {name: series.points(name) for name in names}
    return {name: list(zip(s.tolist(), v.tolist(), strict=True)) for name, (s, v) in points.items() if len(s)}


def best_and_last(name: str, points: list[tuple[int, float]]) -> str:
    """One line for a metric. If no direction is better, it has no best value."""
    last_step, last = points[-1]
    lower = True if name == "val/loss" else lower_is_better(name.removeprefix("eval/"))
    line = f"{name}: {last:.5g} at step {last_step:,}"
    if lower is None or len(points) == 1:
        return line
    step, value = (min if lower else max)(points, key=lambda point: point[1])
    return f"{line}, best {value:.5g} at step {step:,}"
