"""Shows how far a training or a generation is, and how long an image takes."""

from typing import Any

from lightning.pytorch import Callback, Trainer
from torch import Tensor

from ddpm.base import check
from ddpm.base.progress import ProgressDisplay
from ddpm.training.module import DiffusionModule


class TrainingProgress(Callback):
    """In optimizer steps, with loss and images per second. The loss is read only when it is shown, not at each step."""

    def __init__(self, batch_size: int, every_seconds: float) -> None:
        self.batch_size = batch_size
        self.every_seconds = check.number("every_seconds", every_seconds, low=0)
        self.display: ProgressDisplay | None = None

    def on_train_start(self, trainer: Trainer, module: DiffusionModule) -> None:
        if trainer.is_global_zero:
            total = int(trainer.estimated_stepping_batches)  # less than max_steps where epochs are limited
            self.display = ProgressDisplay("step", total, trainer.global_step, self.every_seconds)

    def on_train_batch_end(
        self, trainer: Trainer, module: DiffusionModule, outputs: dict[str, Tensor], batch: Any, batch_idx: int
    ) -> None:
        if self.display and self.display.is_due(trainer.global_step):
            rate = self.display.rate(trainer.global_step) * self.batch_size
            loss = outputs["total"].mean().item()
            self.display.show(trainer.global_step, f"loss {loss:.4f}  {rate:.0f} images/s")

    def on_train_end(self, trainer: Trainer, module: DiffusionModule) -> None:
        if self.display:
            self.display.close()

    def on_exception(self, trainer: Trainer, module: DiffusionModule, exception: BaseException) -> None:
        self.on_train_end(trainer, module)
