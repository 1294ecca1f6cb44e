"""Logs the loss and parts of it in bands of time, which shows where a schedule or objective learns."""

import itertools
from collections.abc import Sequence

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Batch
from ddpm.training.logs import is_log_step, log_numbers
from ddpm.training.module import DiffusionModule
from ddpm.training.sums import RunningSums


def band_of(t: Tensor, T: int, num_bands: int) -> Tensor:
    """The band 0..num_bands-1 of times 1..T, all of about the same width."""
    return (t - 1) * num_bands // T


def band_names(T: int, num_bands: int) -> list[str]:
    """The first and last time of each band, as in "0101-0200"."""
    firsts = [1 - (-band * T // num_bands) for band in range(num_bands + 1)]
    return [f"{first:04d}-{following - 1:04d}" for first, following in itertools.pairwise(firsts)]


class TimestepLoss(RunningSums):
    """num_bands: bands of the times 1..T. Each logs its mean over the steps since the last log as train/loss_t/...

    parts: names of parts of the loss of which it does the same, as train/accuracy_t/..., where the loss has them.
    """

    def __init__(self, num_bands: int, parts: Sequence[str] = ()) -> None:
        self.num_bands = check.positive_int("num_bands", num_bands)
        self.parts = tuple(parts)

    def on_train_batch_end(
        self, trainer: Trainer, module: DiffusionModule, outputs: dict[str, Tensor], batch: Batch, batch_idx: int
    ) -> None:
        T = module.model.sampler.process.T
        num_bands = min(self.num_bands, T)
        total = outputs["unweighted"]
        totals = {"loss": total, **{p: outputs[f"unweighted/{p}"] for p in self.parts if f"unweighted/{p}" in outputs}}
        band = band_of(outputs["t"], T, num_bands)
        here = torch.zeros(1 + len(totals), num_bands, device=total.device)
        self.add(here.index_add_(1, band, torch.stack([*totals.values(), torch.ones_like(total)]).to(here.dtype)))
        if not is_log_step(trainer, batch_idx):
            return
        *sums, counts = self.taken(trainer)
        bands = band_names(T, num_bands)
        for name, of_bands in zip(totals, sums, strict=True):
            means = {f"train/{name}_t/{b}": s / k for b, s, k in zip(bands, of_bands, counts, strict=True) if k}
            log_numbers(trainer, means)
