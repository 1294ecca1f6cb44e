"""Logs images and optimizer steps per second, pauses for validation and pictures left out."""

import time

from lightning.pytorch import Callback, Trainer
from torch import Tensor

from ddpm.training.logs import is_log_step, log_numbers
from ddpm.training.module import DiffusionModule
from ddpm.types import Batch


class Throughput(Callback):
    """batch_size is the global one. The clock runs from the start of a batch to the end of the step that logs."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.seconds = 0.0
        self.first_step = 0
        self.batch_start = 0.0

    def on_train_start(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.first_step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, module: DiffusionModule, batch: Batch, batch_idx: int) -> None:
        self.batch_start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, module: DiffusionModule, outputs: dict[str, Tensor], batch: Batch, batch_idx: int
    ) -> None:
        self.seconds += time.perf_counter() - self.batch_start
        steps = trainer.global_step - self.first_step
        if is_log_step(trainer, batch_idx):
            rate = steps / self.seconds
            log_numbers(trainer, {"sys/steps_per_second": rate, "sys/images_per_second": rate * self.batch_size})
            self.first_step, self.seconds = trainer.global_step, 0.0
