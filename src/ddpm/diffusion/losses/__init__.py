"""Training losses: each a callable from a denoiser and clean samples to LossTerms."""

from typing import Protocol

from torch import Tensor

from ddpm.base.rng import Draws
from ddpm.base.types import Cond, LossTerms
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.time_sampler import TimeSampler


class Loss(Protocol):
    @property
    def time_sampler(self) -> TimeSampler: ...

    def __call__(self, denoiser: NetworkDenoiser, x0: Tensor, cond: Cond, draws: Draws) -> LossTerms:
        """x0: `[B, C, H, W]`. Nothing is averaged over the batch."""
        ...
