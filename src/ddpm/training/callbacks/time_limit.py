"""Ends a training after `trainer.max_time`."""

from typing import Any

from lightning.pytorch.callbacks import Timer

from ddpm.training.logs import ends_step


class TimeLimit(Timer):
    """Counts the time of this process alone: a resumed run has the full time again. It ends after an optimizer step."""

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if ends_step(trainer, batch_idx):
            super().on_train_batch_end(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {}
