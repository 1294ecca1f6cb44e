"""The variational bound itself, L_vlb of Nichol and Dhariwal 2021 (eqs. 4-7), a term at a time."""

from dataclasses import dataclass

from torch import Tensor

from ddpm.base.rng import Draws
from ddpm.base.types import Cond, LossTerms
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.likelihood import bits_per_dim, step_term
from ddpm.diffusion.process import MarkovProcess, demand_markov
from ddpm.diffusion.time_sampler import TimeSampler
from ddpm.diffusion.variance import Variance


@dataclass(frozen=True)
class VLBLoss:
    """total = T times the term of the drawn time, in bits per dimension.

    That is an unbiased estimate of the bound but for L_T, which no network changes. parts["bits"] is the same.
    time_sampler=loss_aware was made for it.
    """

    process: MarkovProcess
    time_sampler: TimeSampler
    variance: Variance

    def __post_init__(self) -> None:
        demand_markov(self.process, "loss=vlb", "loss=simple")

    def __call__(self, denoiser: NetworkDenoiser, x0: Tensor, cond: Cond, draws: Draws) -> LossTerms:
        """x0: `[B, C, H, W]` in [-1, 1]."""
        T = self.process.T
        t = self.time_sampler(draws, T)
        x_t = self.process.apply(x0, self.process.draw(x0, draws), t)
        prediction = denoiser(x_t, t, cond)
        bits = T * bits_per_dim(step_term(self.process, x0, x_t, prediction, t - 1, t, self.variance))
        return LossTerms(bits, t, {"bits": bits}, self.time_sampler.importance(t, T))
