"""Sums over the steps between two logs, stored in checkpoints, so that a resumed run logs the same values."""

from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from ddpm.training.module import DiffusionModule


class RunningSums(Callback):
    """A callback with `sums`, a tensor of sums on this rank since the last log, or None."""

    sums: Tensor | None = None

    def add(self, here: Tensor) -> None:
        known = self.sums is not None and self.sums.shape == here.shape  # a resumed run may have other bands
        self.sums = self.sums.to(here.device) + here if known else here

    def taken(self, trainer: Trainer) -> list[Any]:
        """Return the sums over all ranks, and reset them."""
        assert self.sums is not None
        total = trainer.strategy.reduce(self.sums, reduce_op="sum").tolist()
        self.sums = None
        return total

    def on_save_checkpoint(self, trainer: Trainer, module: DiffusionModule, checkpoint: dict[str, Any]) -> None:
        """Save the sums of each rank separately: floats added in another order differ."""
        rows = None
        if self.sums is not None:
            rows = trainer.strategy.all_gather(self.sums).reshape(trainer.world_size, *self.sums.shape).cpu()
        checkpoint.setdefault("sums", {})[type(self).__name__] = rows

    def on_load_checkpoint(self, trainer: Trainer, module: DiffusionModule, checkpoint: dict[str, Any]) -> None:
        rows = checkpoint["sums"].get(type(self).__name__)
        if rows is None:
            self.sums = None
        elif len(rows) == trainer.world_size:
            self.sums = rows[trainer.global_rank]
        else:
            self.sums = rows.sum(0) if trainer.is_global_zero else torch.zeros_like(rows[0])
