"""SDE-DPM-Solver++ (2M): the multistep solver for the reverse SDE of Lu et al. 2022 (appendix A, eq. 17)."""

import math
from dataclasses import dataclass

from ddpm.base.rng import Draws
from ddpm.base.types import Cond
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.samplers.base import GaussianSampler, State
from ddpm.diffusion.samplers.multistep import Past, combine, span


@dataclass(frozen=True)
class SDEDPMSolver(GaussianSampler):
    """As the solver without noise, for the SDE; where x0 is constant it is the ancestral step with small variance."""

    @property
    def order(self) -> int:
        return 2

    def step(self, denoiser: Denoiser, state: State, s: int, cond: Cond, draws: Draws) -> State:
        t, x_t, past = state.t, state.x_t, state.memory
        prediction = denoiser(x_t, t, cond)
        schedule = self.process.schedule
        mean = self.process.posterior(prediction.x0, x_t, s, t).mean
        memory = Past(t, prediction.x0)
        if s == 0:
            return State(s, mean, prediction, memory)
        if past is not None:
            h = span(schedule, s, t)
            ahead = h / (2 * span(schedule, t, past.t))
            of_x0 = -schedule.alpha(s) * math.expm1(-2 * h)
            mean = combine(mean, 1, (of_x0 * ahead, prediction.x0), (-of_x0 * ahead, past.x0))
        noise = self.process.reverse_noise_like(draws, "step", mean)
        return State(s, mean.add_(noise, alpha=schedule.posterior_variance(s, t) ** 0.5), prediction, memory)
