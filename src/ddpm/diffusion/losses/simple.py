"""The weighted regression of the network's target, L_simple of Ho et al. 2020 (algorithm 1, eq. 14)."""

from dataclasses import dataclass

from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Cond, LossTerms
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.losses.error import ErrorFunction
from ddpm.diffusion.losses.weight import Weight
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.time_sampler import TimeSampler


@dataclass(frozen=True)
class SimpleLoss:
    """total = weight(t) * error(output, target), where error is a mean over pixels.

    parts["error"] is the same without the weight, in the space of the objective.
    """

    process: ForwardProcess
    time_sampler: TimeSampler
    weight: Weight
    error: ErrorFunction

    def __call__(self, denoiser: NetworkDenoiser, x0: Tensor, cond: Cond, draws: Draws) -> LossTerms:
        """x0: `[B, C, H, W]` in [-1, 1]."""
        t = self.time_sampler(draws, self.process.T)
        z = self.process.draw(x0, draws)
        output = denoiser.raw(self.process.apply(x0, z, t), t, cond)
        if output.shape != x0.shape:  # one channel would broadcast
            must_be = f"{x0.shape[1]}, as loss=simple trains no others; with variance=learned_range use loss=hybrid"
            check.fail("model.out_channels", output.shape[1], must_be)
        error = self.error(output, denoiser.objective.target(x0, z, t))
        weight = self.weight(t, self.process.schedule, denoiser.objective).to(error.dtype)
        return LossTerms(weight * error, t, {"error": error}, self.time_sampler.importance(t, self.process.T))
