"""The variance of the reverse step p(x_s | x_t), which the mean of the network's prediction leaves open."""

from dataclasses import dataclass
from typing import Protocol

from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedule import Coefficient
from ddpm.types import Prediction, Time


class Variance(Protocol):
    def __call__(self, process: GaussianDiffusion, prediction: Prediction, s: Time, t: Time) -> Coefficient:
        """A float, or float64 `[B]` for times `[B]`; where each pixel has its own, `[B, C, H, W]`."""
        ...


@dataclass(frozen=True)
class FixedSmall:
    """The variance of the posterior: right if all data were one point (Ho et al. 2020, section 3.2)."""

    def __call__(self, process: GaussianDiffusion, prediction: Prediction, s: Time, t: Time) -> Coefficient:
        return process.schedule.posterior_variance(s, t)


@dataclass(frozen=True)
class FixedLarge:
    """The variance of the forward step: right if the data were standard normal (Ho et al. 2020, section 3.2)."""

    def __call__(self, process: GaussianDiffusion, prediction: Prediction, s: Time, t: Time) -> Coefficient:
        return process.schedule.beta(s, t)
