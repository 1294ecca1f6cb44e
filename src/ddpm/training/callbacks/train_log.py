"""Logs the loss and its parts (means since the last log), learning rate, gradient norm, and how much was seen."""

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from ddpm.base.types import Batch
from ddpm.training.logs import is_log_step, log_numbers
from ddpm.training.module import DiffusionModule
from ddpm.training.sums import RunningSums


class TrainLog(RunningSums):
    """Sums stay on the device between two logs, so that no step waits for it. batch_size is the global one."""

    logged_names = ("val/loss",)

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def on_train_batch_end(
        self, trainer: Trainer, module: DiffusionModule, outputs: dict[str, Tensor], batch: Batch, batch_idx: int
    ) -> None:
        total, names = outputs["total"], [name for name in outputs if name.startswith("part/")]
        sums = [total.sum(), total.new_tensor(len(total)), *(outputs[name].sum().to(total.dtype) for name in names)]
        self.add(torch.stack(sums))
        if not is_log_step(trainer, batch_idx):
            return
        loss, count, *parts = self.taken(trainer)
        numbers = {
            "train/loss": loss / count,
            **{f"train/{name}": part / count for name, part in zip(names, parts, strict=True)},
            "train/lr": trainer.optimizers[0].param_groups[0]["lr"],
            "train/images": trainer.global_step * self.batch_size,
            "train/epoch": trainer.current_epoch,
        }
        if module.grad_norm is not None:
            numbers["train/grad_norm"] = module.grad_norm.item()
        log_numbers(trainer, numbers)

    def on_validation_epoch_start(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.val_sums: Tensor | None = None

    def on_validation_batch_end(
        self, trainer: Trainer, module: DiffusionModule, outputs: dict[str, Tensor], batch: Batch, batch_idx: int
    ) -> None:
        total, self.val_parts = outputs["total"], [name for name in outputs if name.startswith("part/")]
        sums = [total.sum(), total.new_tensor(len(total)), *(outputs[n].sum().to(total.dtype) for n in self.val_parts)]
        here = torch.stack(sums)
        self.val_sums = here if self.val_sums is None else self.val_sums + here

    def on_validation_epoch_end(self, trainer: Trainer, module: DiffusionModule) -> None:
        loss, count, *parts = trainer.strategy.reduce(self.val_sums, reduce_op="sum").tolist()
        module.log("val/loss", loss / count, logger=False)  # for checkpoints kept by it
        means = {f"val/{name}": part / count for name, part in zip(self.val_parts, parts, strict=True)}
        log_numbers(trainer, {"val/loss": loss / count, **means})
