"""Which times a training step sees."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ddpm.rng import Draws

GOLDEN = 0.6180339887498949  # (sqrt(5) - 1) / 2, the number that fractions approach worst


class Timesteps(Protocol):
    def __call__(self, draws: Draws, T: int) -> Tensor:
        """int64 `[B]` in 1..T, each uniform."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Independent and uniform (Ho et al. 2020, algorithm 1)."""

    def __call__(self, draws: Draws, T: int) -> Tensor:
        return 1 + draws.integers("t", T)


@dataclass(frozen=True)
class Stratified:
    """Uniform, but spread evenly over each batch, which lowers the variance of the loss.

    Kingma et al. 2021 (section I.1) space the times of a batch by 1 / B from one random offset. Spaced by the golden
    ratio along the epoch's order instead, every run of consecutive samples is spread evenly, so the times depend
    neither on the batch size nor on the number of processes.
    """

    def __call__(self, draws: Draws, T: int) -> Tensor:
        if draws.positions is None:
            raise ValueError(
                "timesteps=stratified needs the samples' positions in the epoch, and these draws have none"
            )
        offset = draws.rng.at(draws.step, torch.zeros_like(draws.ids[:1])).uniform("t offset")
        place = (offset.double() + GOLDEN * draws.positions.double()) % 1
        return 1 + (place * T).long().clamp_(max=T - 1)
