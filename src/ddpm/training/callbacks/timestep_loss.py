"""Logs the loss and its parts in bands of t, which shows at which noise levels a model learns."""

import itertools
from collections.abc import Sequence

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Batch
from ddpm.training.logs import is_log_step, log_name, log_numbers
from ddpm.training.module import DiffusionModule, StepOutput
from ddpm.training.sums import RunningSums


def band_of(t: Tensor, T: int, num_bands: int) -> Tensor:
    """The bands 0..num_bands-1 of times in 1..T; all bands have about the same width."""
    return (t - 1) * num_bands // T


def band_names(T: int, num_bands: int) -> list[str]:
    """The first and last time of each band, as in "0101-0200"."""
    firsts = [1 - (-band * T // num_bands) for band in range(num_bands + 1)]
    return [f"{first:04d}-{following - 1:04d}" for first, following in itertools.pairwise(firsts)]


class TimestepLoss(RunningSums):
    """num_bands: bands of the times 1..T. The mean of each since the last log is logged as train/loss_t/...

    parts: names of parts of the loss that are logged in the same way, as train/accuracy_t/..., if the loss has them.
    """

    def __init__(self, num_bands: int, parts: Sequence[str] = ()) -> None:
        self.num_bands = check.positive_int("num_bands", num_bands)
        self.parts = tuple(parts)

    def on_train_batch_end(
        self, trainer: Trainer, module: DiffusionModule, outputs: StepOutput, batch: Batch, batch_idx: int
    ) -> None:
        T = module.model.sampler.process.T
        num_bands = min(self.num_bands, T)
        values = {
            (turn, name): of_turn[key]
            for turn, of_turn in outputs["turns"].items()
            for name, key in {"loss": "unweighted", **{part: f"unweighted/{part}" for part in self.parts}}.items()
            if key in of_turn
        }
        if values:
            bands = {turn: band_of(of_turn["t"], T, num_bands) for turn, of_turn in outputs["turns"].items()}
            self.add(torch.stack([in_bands(value, bands[turn], num_bands) for (turn, _), value in values.items()]))
        if not is_log_step(trainer, batch_idx):
            return
        for (turn, name), (sums, counts) in zip(values, self.taken(trainer), strict=True):
            rows = zip(band_names(T, num_bands), sums, counts, strict=True)
            log_numbers(trainer, {log_name(turn, f"{name}_t/{band}"): total / n for band, total, n in rows if n})


def in_bands(values: Tensor, band: Tensor, num_bands: int) -> Tensor:
    """Sum and number of the values `[B]` in each band, `[2, num_bands]`, without NaN values (not measured)."""
    here = torch.zeros(2, num_bands, device=values.device)
    counted = torch.stack([values.nan_to_num(0, torch.inf, -torch.inf), (~values.isnan()).to(values.dtype)])
    return here.index_add_(1, band, counted.to(here.dtype))
