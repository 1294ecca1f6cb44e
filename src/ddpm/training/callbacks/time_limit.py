"""Ends a training when its time is over: `trainer.max_time`."""

from typing import Any

from lightning.pytorch.callbacks import Timer

from ddpm.training.logs import ends_step


class TimeLimit(Timer):
    """Counts the time of one process, so that a resumed run has all of it again, and ends between optimizer steps."""

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if ends_step(trainer, batch_idx):
            super().on_train_batch_end(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {}
