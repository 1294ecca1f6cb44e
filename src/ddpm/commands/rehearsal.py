"""limits.max_minutes: measure a few steps with other weights, and choose the number of steps of the training.

The training itself is then an ordinary run of this number of steps.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig, OmegaConf

from ddpm.base import check
from ddpm.base.progress import stage
from ddpm.checkpoint.stored_config import Fitted
from ddpm.config import build
from ddpm.data.datamodule import ImageDataModule
from ddpm.training.logs import ends_step
from ddpm.training.module import DiffusionModule

WARMUP, MEASURED = 5, 50
"""Steps that are not measured, and steps that are."""
LARGEST_SHARE = 0.1
"""Of the time, for the measured steps. Then fewer are measured, at least one."""


class StepClock(Callback):
    """Ends a training after the measured steps. seconds: of one step, from rank 0, on all ranks."""

    def __init__(self, seconds_in_all: float) -> None:
        self.longest = LARGEST_SHARE * seconds_in_all
        self.times: list[float] = []  # at the start, and at the end of each step
        self.num, self.seconds = MEASURED, 0.0

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        self.times = [now(trainer)]

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not ends_step(trainer, batch_idx):
            return
        step = len(self.times)
        self.times.append(now(trainer) if step in (1, WARMUP, WARMUP + self.num) else 0.0)
        if step == WARMUP:
            fits = self.longest / max(1e-9, (self.times[WARMUP] - self.times[1]) / (WARMUP - 1))
            self.num = trainer.strategy.broadcast(max(1, min(MEASURED, int(fits))))
        elif step == WARMUP + self.num:
            seconds = (self.times[-1] - self.times[WARMUP]) / self.num
            self.seconds = trainer.strategy.broadcast(seconds)
            trainer.should_stop = True


def now(trainer: Trainer) -> float:
    """The time in seconds when the device has finished all steps so far."""
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize(trainer.strategy.root_device)
    return time.perf_counter()


def choose_max_steps(
    config: DictConfig,
    data: ImageDataModule,
    fitted: Fitted,
    fit: Callable[[DictConfig, Trainer, DiffusionModule, ImageDataModule], None],
) -> str:
    """Set trainer.max_steps to the number of steps that fit into limits.max_minutes, with the time of measuring them.

    The same number on all ranks. Returns the choice in words. fit: trains, and explains errors.
    """
    seconds, begin = 60 * check.positive_number("limits.max_minutes", config.limits.max_minutes), time.perf_counter()
    if config.trainer.strategy == "ddp_spawn":
        raise ValueError("limits.max_minutes cannot measure trainer.strategy=ddp_spawn: give trainer.max_steps")
    few = {"trainer": {"max_steps": WARMUP + MEASURED, "limit_val_batches": 0, "profiler": None}}
    rehearsed = OmegaConf.merge(config, few, {"logger": None, "callbacks": None})
    module = build.module(rehearsed, fitted)
    data.of_texts = getattr(module.model.condition, "rows", None)
    trainer = build.trainer(rehearsed, build.preparations(module.model.codec))
    trainer.callbacks.append(clock := StepClock(seconds))
    with stage("measuring a few steps", visible=trainer.is_global_zero):
        fit(rehearsed, trainer, module, data)
    if not clock.seconds:
        raise ValueError("limits.max_minutes could measure no step: another limit ended them; give trainer.max_steps")
    left = trainer.strategy.broadcast(seconds - (time.perf_counter() - begin))
    config.trainer.max_steps = max(1, int(left / clock.seconds))
    return (
        f"limits.max_minutes={config.limits.max_minutes:g}: {clock.num} steps took {clock.num * clock.seconds:.1f} s, "
        f"so trainer.max_steps={config.trainer.max_steps}"
    )
