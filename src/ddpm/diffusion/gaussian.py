"""Gaussian diffusion: x_t = alpha_t x0 + sigma_t eps, between any two times (Ho et al. 2020, section 2)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Prediction, Time
from ddpm.diffusion.coefficients import weighted_sum
from ddpm.diffusion.distributions import Gaussian
from ddpm.diffusion.noises.base import WHITE, Noise, demand_white
from ddpm.diffusion.schedules.base import NoiseSchedule
from ddpm.diffusion.variance import Variance


@dataclass(frozen=True)
class GaussianDiffusion:
    """The forward process and its exact posterior given x0, for any 0 <= s < t <= T.

    Both times of a step are arguments, so a sampler with fewer steps needs no respaced copy of the process.
    noise: what the forward process adds. reverse_noise: what reverse steps add, "same" or "white".
    """

    schedule: NoiseSchedule
    noise: Noise = WHITE
    reverse_noise: Annotated[str, check.words("same", "white")] = "same"
    has_prior: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.schedule, NoiseSchedule):
            raise ValueError("process=gaussian adds noise, and schedule=steps has none: choose schedule=cosine")
        check.fields(self)

    @property
    def T(self) -> int:
        return self.schedule.T

    @property
    def _reverse_step_noise(self) -> Noise:
        return self.noise if self.reverse_noise == "same" else WHITE

    def draw(self, x0: Tensor, draws: Draws) -> Tensor:
        """eps, in the shape of x0."""
        return self.noise(draws, "noise", tuple(x0.shape[1:])).to(x0.dtype)

    def apply(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        """A sample of q(x_t | x0), eq. 4. x0, z: `[B, C, H, W]`."""
        return weighted_sum(self.schedule.alpha(t), x0, self.schedule.sigma(t), z)

    def recover_noise(self, x_t: Tensor, x0: Tensor, t: Time, z: Tensor | None = None) -> Tensor:
        """The eps that leads from x0 to x_t, for t >= 1."""
        sigma = self.schedule.sigma(t)
        return weighted_sum(1 / sigma, x_t, -self.schedule.alpha(t) / sigma, x0)

    def prior(self, shape: tuple[int, ...], draws: Draws) -> Tensor:
        """x_T: pure noise, float32 `[B, *shape]`."""
        return self.noise(draws, "prior", shape)

    def reverse_noise_like(self, draws: Draws, stream: str, like: Tensor) -> Tensor:
        """Noise of a reverse step, not yet scaled, in the shape and dtype of `like` `[B, C, H, W]`."""
        return self._reverse_step_noise(draws, stream, tuple(like.shape[1:])).to(like.dtype)

    def marginal(self, x0: Tensor, t: Time) -> Gaussian:
        """q(x_t | x0), eq. 4."""
        mean = weighted_sum(self.schedule.alpha(t), x0, 0.0, x0)
        return Gaussian(mean, self.schedule.sigma(t) ** 2, self.noise)

    def limit(self, like: Tensor) -> Gaussian:
        """The prior p(x_T), standard normal for white noise, in the shape of `like`."""
        return Gaussian(torch.zeros_like(like), 1.0, self.noise)

    def posterior(self, x0: Tensor, x_t: Tensor, s: Time, t: Time) -> Gaussian:
        """q(x_s | x_t, x0) for any 0 <= s < t, eqs. 6-7 generalized to strided steps.

        x0, x_t: `[B, C, H, W]`; s, t: both ints or both int64 `[B]`. The variance, a float or float64 `[B]`, is 0 at
        s = 0.
        """
        alpha_s, alpha_t = self.schedule.alpha(s), self.schedule.alpha(t)
        var_s, var_t = self.schedule.sigma(s) ** 2, self.schedule.sigma(t) ** 2
        of_x0 = alpha_s * self.schedule.beta(s, t) / var_t
        of_x_t = alpha_t / alpha_s * var_s / var_t
        mean = weighted_sum(of_x0, x0, of_x_t, x_t)
        return Gaussian(mean, self.schedule.posterior_variance(s, t), self._reverse_step_noise)

    def reverse(self, prediction: Prediction, x_t: Tensor, s: Time, t: Time, variance: Variance) -> Gaussian:
        """The model's p(x_s | x_t): the posterior mean at the predicted x0, with the given variance.

        A guidance gradient moves the mean by variance * gradient (Dhariwal and Nichol 2021, algorithm 1).
        """
        posterior = self.posterior(prediction.x0, x_t, s, t)
        mean = posterior.mean
        spread = variance(self.schedule, prediction, s, t)
        if prediction.guidance_gradient is not None:
            mean = weighted_sum(1.0, mean, spread, prediction.guidance_gradient(mean))
        return posterior._replace(mean=mean, variance=spread)

    def score(self, x_t: Tensor, x0: Tensor, t: Time) -> Tensor:
        """The gradient of log p(x_t) if x0 is E[x0 | x_t]: -eps / sigma (Song et al. 2021, "Score-based ...").

        ValueError unless the noise is white: the score of other noise also depends on its covariance.
        """
        demand_white(self.noise)
        sigma = self.schedule.sigma(t)
        return weighted_sum(-1 / sigma**2, x_t, self.schedule.alpha(t) / sigma**2, x0)

    def advance(self, x_s: Tensor, s: Time, t: Time, z: Tensor) -> Tensor:
        """A sample of q(x_t | x_s), s < t, from standard normal z: eq. 2 over several steps at once."""
        signal = self.schedule.alpha(t) / self.schedule.alpha(s)
        return weighted_sum(signal, x_s, self.schedule.beta(s, t) ** 0.5, z)
