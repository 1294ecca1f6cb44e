"""Logs the loss and its parts (means since the last log), learning rate, gradient norm, images and epochs."""

import math
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from ddpm.base.types import Batch
from ddpm.runs.console import write_to_log
from ddpm.training.logs import is_log_step, log_name, log_numbers
from ddpm.training.module import DiffusionModule, StepOutput
from ddpm.training.sums import RunningSums


class TrainLog(RunningSums):
    """Sums stay on the device between logs, to avoid synchronization. batch_size: global batch size."""

    logged_names = ("val/loss",)

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def on_train_batch_end(
        self, trainer: Trainer, module: DiffusionModule, outputs: StepOutput, batch: Batch, batch_idx: int
    ) -> None:
        values = {
            log_name(turn, "loss" if name == "total" else name): value
            for turn, of_turn in outputs["turns"].items()
            for name, value in of_turn.items()
            if name == "total" or name.startswith("part/")
        }
        if values:
            rows = [sum_and_count(value) for value in values.values()]
            self.add(torch.stack([row.to(rows[0].dtype) for row in rows]))
        if not is_log_step(trainer, batch_idx):
            return
        means = {name: total / n for name, (total, n) in zip(values, self.taken(trainer), strict=True) if n}
        for turn, optimizer in zip(module.turns, trainer.optimizers, strict=True):
            means[log_name(turn.name, "lr")] = optimizer.param_groups[0]["lr"]
        means |= {"train/images": trainer.global_step * self.batch_size, "train/epoch": trainer.current_epoch}
        means |= {log_name(turn, "grad_norm"): norm.item() for turn, norm in module.grad_norms.items()}
        log_numbers(trainer, means)
        losses = ", ".join(f"{name} {value:.5g}" for name, value in means.items() if name.endswith("loss"))
        rank_zero_only(write_to_log)(f"step {trainer.global_step}: {losses}")

    def on_validation_epoch_start(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.val_sums: Tensor | None = None

    def on_validation_batch_end(self, trainer: Trainer, module: Any, outputs: dict[str, Tensor], *_: Any) -> None:
        total, self.val_parts = outputs["total"], [name for name in outputs if name.startswith("part/")]
        sums = [total.sum(), total.new_tensor(len(total)), *(outputs[n].sum().to(total.dtype) for n in self.val_parts)]
        here = torch.stack(sums)
        self.val_sums = here if self.val_sums is None else self.val_sums + here

    def on_validation_epoch_end(self, trainer: Trainer, module: DiffusionModule) -> None:
        loss, count, *parts = trainer.strategy.reduce(self.val_sums, reduce_op="sum").tolist()
        module.log("val/loss", loss / count, logger=False)  # for keep.best
        means = {f"val/{name}": part / count for name, part in zip(self.val_parts, parts, strict=True)}
        measured = {name: mean for name, mean in means.items() if not math.isnan(mean)}
        log_numbers(trainer, {"val/loss": loss / count, **measured})
        rank_zero_only(write_to_log)(f"step {trainer.global_step}: val/loss {loss / count:.5g}")


def sum_and_count(values: Tensor) -> Tensor:
    """Sum and number of values `[B]`, `[2]`. If all are NaN, which means not measured, the count is 0."""
    is_measured = ~values.isnan().all()
    return torch.stack([values.sum().where(is_measured, 0), (is_measured * len(values)).to(values.dtype)])
