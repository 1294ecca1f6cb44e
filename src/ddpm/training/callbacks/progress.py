"""Displays the progress of a training."""

from typing import Any

from lightning.pytorch import Callback, Trainer

from ddpm.base import check
from ddpm.base.progress import ProgressDisplay
from ddpm.training.module import DiffusionModule, StepOutput
from ddpm.training.turn import NETWORK


class TrainingProgress(Callback):
    """Displays optimizer steps, loss and images per second. The loss is read from the device only for display."""

    def __init__(self, batch_size: int, every_seconds: float) -> None:
        self.batch_size = batch_size
        self.every_seconds = check.number("every_seconds", every_seconds, low=0)
        self.display: ProgressDisplay | None = None

    def on_train_start(self, trainer: Trainer, module: DiffusionModule) -> None:
        if trainer.is_global_zero:
            total = int(trainer.estimated_stepping_batches)  # less than max_steps if epochs are limited
            self.display = ProgressDisplay("step", total, trainer.global_step, self.every_seconds)

    def on_train_batch_end(self, trainer: Trainer, module: DiffusionModule, outputs: StepOutput, *_: Any) -> None:
        if self.display and outputs["turns"] and self.display.is_due(trainer.global_step):
            rate = self.display.rate(trainer.global_step) * self.batch_size
            losses = [f"{turn} loss" if turn != NETWORK else "loss" for turn in outputs["turns"]]
            means = [each["total"].mean().item() for each in outputs["turns"].values()]
            said = "  ".join(f"{name} {mean:.4f}" for name, mean in zip(losses, means, strict=True))
            self.display.show(trainer.global_step, f"{said}  {rate:.0f} images/s")

    def on_validation_start(self, trainer: Trainer, module: DiffusionModule) -> None:
        if self.display:
            self.validation = ProgressDisplay("validating, batch", int(sum(trainer.num_val_batches)))

    def on_validation_batch_end(
        self, trainer: Trainer, module: DiffusionModule, outputs: Any, batch: Any, batch_idx: int, *_: int
    ) -> None:
        if self.display and self.validation.is_due(batch_idx + 1) and batch_idx + 1 < self.validation.total:
            self.validation.show(batch_idx + 1, "")

    def on_validation_end(self, trainer: Trainer, module: DiffusionModule) -> None:
        if self.display:
            self.validation.close()

    def on_train_end(self, trainer: Trainer, module: DiffusionModule) -> None:
        if self.display:
            self.display.close()

    def on_exception(self, trainer: Trainer, module: DiffusionModule, exception: BaseException) -> None:
        self.on_train_end(trainer, module)
