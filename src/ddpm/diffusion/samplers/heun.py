"""Heun's method on the probability-flow ODE in sigma / alpha, with churn (Karras et al. 2022, algorithms 1 and 2)."""

import itertools
from dataclasses import dataclass

from ddpm.base.types import Cond
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.samplers.base import State
from ddpm.diffusion.samplers.edm import EDMSampler, is_long, noise_ratio
from ddpm.diffusion.samplers.multistep import combine, constant_x0


@dataclass(frozen=True)
class Heun(EDMSampler):
    """Euler's step, and once more with the mean of the slopes at both ends: two evaluations.

    The step to 0 is Euler's, and so is any in which the noise falls more than tenfold, as in the first under
    schedule=cosine on an even grid: what the mean of the slopes corrects there is less than what it adds.
    """

    @property
    def order(self) -> int:
        return 2

    def evaluations(self, steps: int) -> int:
        times = self.timestep_spacing(self.process.T, steps, self.process.schedule)
        pairs = ((self.churned(t), s) for t, s in itertools.pairwise(times))
        return sum(1 if is_long(self.process.schedule, s, t) else 2 for t, s in pairs)

    def solve(self, denoiser: Denoiser, state: State, s: int, cond: Cond) -> State:
        t, x_t, schedule = state.t, state.x_t, self.process.schedule
        prediction = denoiser(x_t, t, cond)
        of_x_t, of_x0 = constant_x0(schedule, s, t)
        x_s = combine(x_t, of_x_t, (of_x0, prediction.x0))
        if is_long(schedule, s, t):
            return State(s, x_s, prediction)
        at_s = denoiser(x_s, s, cond)
        # the slope is eps: x_s / alpha_s = x_t / alpha_t + (ratio_s - ratio_t) (eps_t + eps_s) / 2, with Euler's x_s
        half = schedule.alpha(s) * (noise_ratio(schedule, s) - noise_ratio(schedule, t)) / 2
        here, other = half / schedule.sigma(t), half / schedule.sigma(s)
        x_s = combine(
            x_t,
            schedule.alpha(s) / schedule.alpha(t) + here + other * of_x_t,
            (other * of_x0 - here * schedule.alpha(t), prediction.x0),
            (-other * schedule.alpha(s), at_s.x0),
        )
        return State(s, x_s, at_s)
