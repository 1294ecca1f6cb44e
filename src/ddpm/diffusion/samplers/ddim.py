"""Denoising diffusion implicit models: the non-Markovian family of Song et al. 2021 (eqs. 12 and 16)."""

from dataclasses import dataclass
from typing import ClassVar

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Cond
from ddpm.diffusion.coefficients import weighted_sum
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.samplers.base import GaussianSampler, State


@dataclass(frozen=True)
class DDIM(GaussianSampler):
    """eta scales the noise: 0 is deterministic (first order in the step), 1 the ancestral step with small variance.

    clipped_eps: whether eps is computed from the clipped x0, as in OpenAI's code, or from x0 before the clipping, as in
    diffusers; guidance changes both. Song et al. do not clip.
    """

    eta: check.Share
    clipped_eps: bool = True
    order: ClassVar[int] = 1

    def step(self, denoiser: Denoiser, state: State, s: int, cond: Cond, draws: Draws) -> State:
        t, x_t = state.t, state.x_t
        prediction = denoiser(x_t, t, cond)
        schedule = self.process.schedule
        variance = self.eta**2 * schedule.posterior_variance(s, t)
        # x_s = alpha_s x0 + sqrt(sigma_s^2 - variance) eps with eps = (x_t - alpha_t x0) / sigma_t, collected by factor
        of_x_t = max(schedule.sigma(s) ** 2 - variance, 0) ** 0.5 / schedule.sigma(t)
        x_s = weighted_sum(schedule.alpha(s) - schedule.alpha(t) * of_x_t, prediction.x0, of_x_t, x_t)
        if not self.clipped_eps and prediction.unclipped is not None:
            x_s.add_(prediction.x0 - prediction.unclipped, alpha=schedule.alpha(t) * of_x_t)
        if variance > 0:
            x_s.add_(self.process.reverse_noise_like(draws, "step", x_t), alpha=float(variance) ** 0.5)
        return State(s, x_s, prediction)
