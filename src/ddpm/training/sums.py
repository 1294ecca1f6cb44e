"""Sums that are logged every few steps, each rank's own, so that a run resumed between two logs logs the same."""

from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from ddpm.training.module import DiffusionModule


class RunningSums(Callback):
    """A callback with `sums`, a tensor of this rank since the last log, or None."""

    sums: Tensor | None = None

    def add(self, here: Tensor) -> None:
        known = self.sums is not None and self.sums.shape == here.shape  # a resumed run may count in other bands
        self.sums = self.sums.to(here.device) + here if known else here

    def taken(self, trainer: Trainer) -> list[Any]:
        """The sums over all ranks, which begin anew."""
        assert self.sums is not None
        total = trainer.strategy.reduce(self.sums, reduce_op="sum").tolist()
        self.sums = None
        return total

    def on_save_checkpoint(self, trainer: Trainer, module: DiffusionModule, checkpoint: dict[str, Any]) -> None:
        """Every rank's row is kept: added up in another order, floats differ."""
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
