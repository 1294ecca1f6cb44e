"""DPM-Solver++: the multistep solvers of Lu et al. 2022."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from ddpm.base.rng import Draws
from ddpm.base.types import Cond
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.samplers.base import GaussianSampler, State
from ddpm.diffusion.samplers.multistep import Past, combine, constant_x0, multistep_update, span


class DPMSolver3MMemory(NamedTuple):
    """past: predictions, newest first. x_t: start of the last step."""

    past: tuple[Past, ...]
    x_t: Tensor


@dataclass(frozen=True)
class DPMSolver(GaussianSampler):
    """2M (algorithm 2), deterministic: x0 in the middle of a step is extrapolated linearly from its last two values.

    The first step and the one to 0, where lambda is infinite, are DDIM steps.
    """

    order: ClassVar[int] = 2

    def step(self, denoiser: Denoiser, state: State, s: int, cond: Cond, draws: Draws) -> State:
        t, x_t, past = state.t, state.x_t, state.memory
        prediction = denoiser(x_t, t, cond)
        x0, schedule = prediction.x0, self.process.schedule
        of_x_t, of_x0 = constant_x0(schedule, s, t)
        memory = Past(t, x0)
        if past is None or s == 0:
            return State(s, combine(x_t, of_x_t, (of_x0, x0)), prediction, memory)
        ahead = span(schedule, s, t) / (2 * span(schedule, t, past.t))
        x_s = combine(x_t, of_x_t, (of_x0 * (1 + ahead), x0), (-of_x0 * ahead, past.x0))
        return State(s, x_s, prediction, memory)


@dataclass(frozen=True)
class DPMSolver3M(GaussianSampler):
    """3M (appendix B, for k = 3), deterministic: a parabola through the last three values of x0, integrated exactly.

    The first step and the one to 0 are DDIM steps; the second is a step of 2M. The authors' code and its copies are of
    second order. This solver is of third order, because of two differences: the curvature has the full weight of the
    integral, instead of half of it; and once x0 is known at the end of the first step, this step is repeated with x0
    interpolated linearly between its ends, which needs no more evaluations.
    """

    order: ClassVar[int] = 3

    def step(self, denoiser: Denoiser, state: State, s: int, cond: Cond, draws: Draws) -> State:
        t, x_t = state.t, state.x_t
        prediction = denoiser(x_t, t, cond)
        x0, schedule = prediction.x0, self.process.schedule
        of_x_t, of_x0 = constant_x0(schedule, s, t)
        past, began = state.memory or DPMSolver3MMemory((), x_t)
        memory = DPMSolver3MMemory((Past(t, x0), *past[:1]), x_t)
        if len(past) == 1:
            x_t = multistep_update(schedule, began, past, t, Past(t, x0))
        if s == 0 or not past or math.isinf(span(schedule, t, past[0].t)):
            return State(s, combine(x_t, of_x_t, (of_x0, x0)), prediction, memory)
        h, before = span(schedule, s, t), span(schedule, t, past[0].t)
        if len(past) == 1 or math.isinf(span(schedule, past[0].t, past[1].t)):
            ahead = h / (2 * before)
            x_s = combine(x_t, of_x_t, (of_x0 * (1 + ahead), x0), (-of_x0 * ahead, past[0].x0))
            return State(s, x_s, prediction, memory)
        earlier = span(schedule, past[0].t, past[1].t)
        slope = schedule.alpha(s) * (math.expm1(-h) / h + 1)  # factors of the slope of x0 at t, times h,
        bend = schedule.alpha(s) * (1 - 2 * (math.expm1(-h) + h) / h**2)  # and of half its curvature, times h^2
        # by divided differences d1, d2 over the last two intervals: slope = d1 + r0 bend, bend = (d1 - d2) / (r0 + r1)
        r0, r1 = before / h, earlier / h
        of_bend = (slope * r0 + bend) / (r0 + r1)
        of_d1, of_d2 = (slope + of_bend) / r0, -of_bend / r1
        x_s = combine(x_t, of_x_t, (of_x0 + of_d1, x0), (of_d2 - of_d1, past[0].x0), (-of_d2, past[1].x0))
        return State(s, x_s, prediction, memory)


@dataclass(frozen=True)
class SDEDPMSolver(GaussianSampler):
    """SDE 2M (appendix A, eq. 17), stochastic: for constant x0 it is the ancestral step with small variance."""

    order: ClassVar[int] = 2

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
