"""Logs images and optimizer steps per second of computation, and the time between steps."""

import time

from lightning.pytorch import Callback, Trainer

from ddpm.base.types import Batch
from ddpm.training.logs import is_log_step, log_numbers
from ddpm.training.module import DiffusionModule, StepOutput


class Throughput(Callback):
    """batch_size: global batch size.

    The rates use the time from the start of a batch to the end of its step. sys/seconds_between_steps is the mean time
    from the end of a step to the next batch: the data loader's, and that of validation and pictures if there are any.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def on_train_start(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.restart(trainer)

    def restart(self, trainer: Trainer) -> None:
        self.first_step, self.computing, self.start = trainer.global_step, 0.0, time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, module: DiffusionModule, batch: Batch, batch_idx: int) -> None:
        self.batch_start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, module: DiffusionModule, outputs: StepOutput, batch: Batch, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self.computing += now - self.batch_start
        steps = trainer.global_step - self.first_step
        if steps and is_log_step(trainer, batch_idx):
            rate = steps / self.computing
            numbers = {"sys/steps_per_second": rate, "sys/images_per_second": rate * self.batch_size}
            between = (now - self.start - self.computing) / steps
            log_numbers(trainer, numbers | {"sys/seconds_between_steps": between})
            self.restart(trainer)
