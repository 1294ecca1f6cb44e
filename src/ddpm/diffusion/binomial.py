"""Binomial diffusion: pixels of -1 and 1 that turn into fair coins (Sohl-Dickstein et al. 2015, table App.1).

In a step each pixel is tossed anew with probability beta_t, so E[x_t | x_s] = x_s a(t) / a(s) with a(t) the product of
1 - beta. We take a(t) = alpha_bar(t), which makes schedule=jsd the paper's beta_t = 1 / (T - t + 1): a falls on a line
to 0, and x_T knows nothing of x0. So alpha_bar is here the share of pixels that were not tossed yet, where in Gaussian
diffusion it is the signal's share of the variance.
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
    """The forward process and its exact reversal, for any 0 <= s < t <= T. Images hold -1 and 1 only."""

    schedule: NoiseSchedule
    has_prior: ClassVar[bool] = True

    @property
    def T(self) -> int:
        return self.schedule.T

    def draw(self, x0: Tensor, draws: Draws) -> Tensor:
        """One uniform number in [0, 1) for each pixel."""
        return draws.uniform("noise", tuple(x0.shape[1:])).to(x0.dtype)

    def apply(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        """A sample of q(x_t | x0): 1 where z is below its probability. x0, z: `[B, C, H, W]`."""
        return torch.where(z < self._probability(x0, t), 1.0, -1.0).to(x0.dtype)

    def recover_noise(self, x_t: Tensor, x0: Tensor, t: Time, z: Tensor | None = None) -> Tensor:
        """Of all z that lead from x0 to x_t, the one in the middle. x0 may be a guess in [-1, 1]; t >= 1."""
        probability = self._probability(x0, t)
        return torch.where(x_t > 0, probability, 1 + probability) / 2

    def prior(self, shape: tuple[int, ...], draws: Draws) -> Tensor:
        """x_T, fair coins `[B, *shape]` in float32."""
        return torch.where(draws.uniform("prior", shape) < 0.5, 1.0, -1.0)

    def marginal(self, x0: Tensor, t: Time) -> Bernoulli:
        """q(x_t | x0)."""
        return Bernoulli(per_sample(self._kept(t), x0) * x0)

    def limit(self, like: Tensor) -> Bernoulli:
        """What x_T is taken for where nothing is known of x0: fair coins, of the shape of `like`."""
        return Bernoulli(torch.zeros_like(like))

    def posterior(self, x0: Tensor, x_t: Tensor, s: Time, t: Time) -> Bernoulli:
        """q(x_s | x_t, x0) for any 0 <= s < t; x0 itself at s = 0.

        x0: -1 and 1, or E[x0 | x_t] in [-1, 1] where it is not known; the result is then that of both, mixed with the
        probabilities (1 + x0) / 2 and (1 - x0) / 2. Bayes' rule gives (a_s x0 + b x_t) / (1 + a_t x0 x_t) as its mean,
        with b = a_t / a_s, and for x_t of -1 and 1 the line through both values of x0 is the formula below: that of
        Gaussian diffusion (Ho et al. 2020, eq. 7) with a in place of alpha and 1 - a^2 of sigma^2.
        """
        a_s, a_t, b = self._kept(s), self._kept(t), 1 - self.schedule.beta(s, t)
        of_x0 = a_s * (1 - b**2) / (1 - a_t**2)
        of_x_t = b * (1 - a_s**2) / (1 - a_t**2)
        return Bernoulli(weighted_sum(of_x0, x0, of_x_t, x_t).clamp(-1, 1))  # rounding may go beyond

    def reverse(self, prediction: Prediction, x_t: Tensor, s: Time, t: Time, variance: Variance) -> Bernoulli:
        """p(x_s | x_t) of the model, exact for one pixel if the prediction is. `variance` has nothing left to say."""
        return self.posterior(prediction.x0, x_t, s, t)

    def _kept(self, t: Time) -> Coefficient:
        """a(t), E[x_t x0]."""
        return self.schedule.alpha(t) ** 2

    def _probability(self, x0: Tensor, t: Time) -> Tensor:
        """Of x_t being 1."""
        return (1 + self.marginal(x0, t).mean) / 2
