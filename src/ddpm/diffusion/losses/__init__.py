"""Training losses: each a callable from a denoiser and clean samples to LossTerms."""

from typing import Protocol

from torch import Tensor

from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.timesteps import Timesteps
from ddpm.rng import Draws
from ddpm.types import Cond, LossTerms


class Loss(Protocol):
    @property
    def timesteps(self) -> Timesteps: ...

    def __call__(self, denoiser: NetworkDenoiser, x0: Tensor, cond: Cond, draws: Draws) -> LossTerms:
        """x0: `[B, C, H, W]`. Nothing is averaged over the batch."""
        ...
