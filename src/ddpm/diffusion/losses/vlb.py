"""The variational bound as a loss, alone or added to L_simple to train the variance (Nichol and Dhariwal 2021)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Cond, LossTerms, Prediction
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.losses.bound import bits_per_dim, likelihood_of, step_term
from ddpm.diffusion.losses.error import ErrorFunction
from ddpm.diffusion.losses.weight import Weight
from ddpm.diffusion.process import MarkovProcess, demand_markov
from ddpm.diffusion.time_sampler import TimeSampler
from ddpm.diffusion.variance import Variance


def demand_unbiased(time_sampler: TimeSampler, loss: str) -> None:
    """Raise ValueError unless the mean of the loss over the drawn times estimates that over uniform times."""
    if time_sampler.weights_times:
        raise ValueError(f"time_sampler=logit_normal weights the times, so {loss} is no bound: choose loss_aware")


@dataclass(frozen=True)
class VLBLoss:
    """L_vlb (eqs. 4-7): total = T times the term at the sampled t, in bits per dimension.

    For uniform t this is an unbiased estimate of the bound without L_T, which does not depend on the network.
    parts["bits"]: the same value. time_sampler=loss_aware was proposed for this loss. floor: of the decoder's
    probabilities (see `floored_log_mass`); None: none.
    """

    counts_bits: ClassVar[bool] = True
    process: MarkovProcess
    time_sampler: TimeSampler
    variance: Variance
    floor: float | None = None

    def __post_init__(self) -> None:
        likelihood_of(self.floor)
        demand_markov(self.process, "loss=vlb", "loss=simple")
        demand_unbiased(self.time_sampler, "loss=vlb")

    def __call__(self, denoiser: NetworkDenoiser, x0: Tensor, cond: Cond, draws: Draws) -> LossTerms:
        """x0: `[B, C, H, W]` in [-1, 1]."""
        T = self.process.T
        t = self.time_sampler(draws, T)
        x_t = self.process.apply(x0, self.process.draw(x0, draws), t)
        prediction = denoiser(x_t, t, cond)
        likelihood = likelihood_of(self.floor)
        bits = T * bits_per_dim(step_term(self.process, x0, x_t, prediction, t - 1, t, self.variance, likelihood))
        return LossTerms(bits, t, {"bits": bits}, self.time_sampler.importance(t, T))


@dataclass(frozen=True)
class HybridLoss:
    """L_hybrid (eq. 16): total = L_simple + vlb_weight * T * the bound's term in bits per dimension, from one pass.

    The gradient of the bound does not pass through the predicted x0, so it trains only the variance. vlb_weight:
    lambda, 0.001 in the paper. parts: "error" as in loss=simple, and "bits", the bound. floor: as in `VLBLoss`.
    """

    counts_bits: ClassVar[bool] = True
    process: MarkovProcess
    time_sampler: TimeSampler
    weight: Weight
    error: ErrorFunction
    variance: Variance
    vlb_weight: check.NonNegativeNumber
    floor: float | None = None

    def __post_init__(self) -> None:
        likelihood_of(self.floor)
        check.fields(self)
        demand_markov(self.process, "loss=hybrid", "loss=simple")
        demand_unbiased(self.time_sampler, "loss=hybrid")

    def __call__(self, denoiser: NetworkDenoiser, x0: Tensor, cond: Cond, draws: Draws) -> LossTerms:
        """x0: `[B, C, H, W]` in [-1, 1]."""
        T, channels = self.process.T, x0.shape[1]
        t = self.time_sampler(draws, T)
        z = self.process.draw(x0, draws)
        x_t = self.process.apply(x0, z, t)
        output = denoiser.raw(x_t, t, cond)
        if output.shape[1] != channels * self.variance.num_outputs or self.variance.num_outputs == 1:
            check.fail("model.out_channels", output.shape[1], f"{2 * channels}, with variance=learned_range")
        mean, extra = output[:, :channels], output[:, channels:]
        error = self.error(mean, denoiser.objective.target(x0, z, t))
        weight = self.weight(t, self.process.schedule, denoiser.objective).to(error.dtype)
        prediction = Prediction(denoiser.objective.to_x0(mean.detach(), x_t, t), extra)
        likelihood = likelihood_of(self.floor)
        bits = T * bits_per_dim(step_term(self.process, x0, x_t, prediction, t - 1, t, self.variance, likelihood))
        parts = {"error": error, "bits": bits}
        return LossTerms(weight * error + self.vlb_weight * bits, t, parts, self.time_sampler.importance(t, T))
