"""Self-conditioning: a network that is conditioned on its previous prediction (Chen et al. 2023, "Analog Bits")."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm.base.rng import Draws
from ddpm.base.types import Cond, Time
from ddpm.diffusion.denoiser import X0_GUESS, NetworkDenoiser


@dataclass(frozen=True, eq=False)
class SelfConditioned(NetworkDenoiser):
    """In training: for half of the samples the network predicts without a guess first, then from its own prediction.

    The first pass is outside of the gradient. Which half is drawn for each sample, so it depends on no batch. In
    sampling the loop hands on the last prediction, and NetworkDenoiser is all that is needed.
    """

    draws: Draws

    def raw(self, x_t: Tensor, t: Time, cond: Cond) -> Tensor:
        with torch.no_grad():
            first = super().raw(x_t, t, cond)
            guess = self.objective.to_x0(first[:, : x_t.shape[1]], x_t, t)
            is_given = self.draws.integers("self-conditioning", 2).view(-1, *[1] * (x_t.ndim - 1))
        return super().raw(x_t, t, {**cond, X0_GUESS: guess * is_given})
