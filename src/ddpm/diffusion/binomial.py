"""Binomial diffusion: pixels of -1 and 1 become fair coin flips (Sohl-Dickstein et al. 2015, table App.1).

Each step resamples each pixel with probability beta_t, so E[x_t | x_s] = x_s a(t) / a(s), where a(t) is the product of
1 - beta. We set a(t) = alpha_bar(t). With schedule=jsd this gives the paper's beta_t = 1 / (T - t + 1): a falls
linearly to 0, and x_T is independent of x0. Here alpha_bar is the expected share of pixels not yet resampled; in
Gaussian diffusion it is the share of signal variance.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddpm.base.rng import Draws
from ddpm.base.types import Prediction, Time
from ddpm.diffusion.coefficients import Coefficient, per_sample, weighted_sum
from ddpm.diffusion.distributions import Bernoulli
from ddpm.diffusion.schedules.base import NoiseSchedule
from ddpm.diffusion.variance import Variance


@dataclass(frozen=True)
class BinomialDiffusion:
    """The forward process and its exact posterior, for any 0 <= s < t <= T. Pixels are -1 or 1."""

    schedule: NoiseSchedule
    has_prior: ClassVar[bool] = True
    idle: ClassVar = ("variance", "loss.floor")

    @property
    def T(self) -> int:
        return self.schedule.T

    def draw(self, x0: Tensor, draws: Draws) -> Tensor:
        """One uniform number in [0, 1) for each pixel."""
        return draws.uniform("noise", tuple(x0.shape[1:])).to(x0.dtype)

    def apply(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        """A sample of q(x_t | x0): 1 where z < P(x_t = 1 | x0), else -1. x0, z: `[B, C, H, W]`."""
        return torch.where(z < self._probability(x0, t), 1.0, -1.0).to(x0.dtype)

    def recover_noise(self, x_t: Tensor, x0: Tensor, t: Time, z: Tensor | None = None) -> Tensor:
        """The midpoint of the interval of z that lead from x0 to x_t. x0 may be a prediction in [-1, 1]; t >= 1."""
        probability = self._probability(x0, t)
        return torch.where(x_t > 0, probability, 1 + probability) / 2

    def prior(self, shape: tuple[int, ...], draws: Draws) -> Tensor:
        """x_T: fair coin flips, float32 `[B, *shape]`."""
        return torch.where(draws.uniform("prior", shape) < 0.5, 1.0, -1.0)

    def marginal(self, x0: Tensor, t: Time) -> Bernoulli:
        """q(x_t | x0)."""
        return Bernoulli(per_sample(self._kept(t), x0) * x0)

    def limit(self, like: Tensor) -> Bernoulli:
        """The prior p(x_T), fair coin flips, in the shape of `like`."""
        return Bernoulli(torch.zeros_like(like))

    def posterior(self, x0: Tensor, x_t: Tensor, s: Time, t: Time) -> Bernoulli:
        """q(x_s | x_t, x0) for any 0 <= s < t; x0 itself at s = 0.

        x0: -1 and 1, or a prediction of E[x0 | x_t] in [-1, 1]; then the result is the mixture of the posteriors of
        x0 = 1 and x0 = -1 with the probabilities (1 + x0) / 2 and (1 - x0) / 2. By Bayes' rule the mean is
        (a_s x0 + b x_t) / (1 + a_t x0 x_t) with b = a_t / a_s. Linear interpolation between x0 = -1 and x0 = 1 gives
        the formula below: Ho et al. 2020, eq. 7, with a in place of alpha and 1 - a^2 in place of sigma^2.
        """
        a_s, a_t, b = self._kept(s), self._kept(t), 1 - self.schedule.beta(s, t)
        of_x0 = a_s * (1 - b**2) / (1 - a_t**2)
        of_x_t = b * (1 - a_s**2) / (1 - a_t**2)
        return Bernoulli(weighted_sum(of_x0, x0, of_x_t, x_t).clamp(-1, 1))  # rounding may exceed [-1, 1]

    def reverse(self, prediction: Prediction, x_t: Tensor, s: Time, t: Time, variance: Variance) -> Bernoulli:
        """The model's p(x_s | x_t). Each pixel's marginal is exact if the prediction is. `variance` is not used."""
        return self.posterior(prediction.x0, x_t, s, t)

    def _kept(self, t: Time) -> Coefficient:
        """a(t) = E[x_t x0]."""
        return self.schedule.alpha(t) ** 2

    def _probability(self, x0: Tensor, t: Time) -> Tensor:
        """P(x_t = 1 | x0), `[B, C, H, W]`."""
        return (1 + self.marginal(x0, t).mean) / 2
