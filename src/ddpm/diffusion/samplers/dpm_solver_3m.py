"""DPM-Solver++ (3M): the multistep solver of third order of Lu et al. 2022 (appendix B, for k = 3)."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ddpm.base.rng import Draws
from ddpm.base.types import Cond
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.samplers.base import GaussianSampler, State
from ddpm.diffusion.samplers.multistep import Past, combine, constant_x0, multistep_update, span


class DPMSolver3MMemory(NamedTuple):
    """past: the newest first. x_t: where the last step began."""

    past: tuple[Past, ...]
    x_t: Tensor


@dataclass(frozen=True)
class DPMSolver3M(GaussianSampler):
    """x0 follows a parabola through its last three values, integrated exactly; no noise.

    The first step and the one to 0 are DDIM's, the second is that of the solver of second order. It departs twice from
    the authors' code and its copies, which are of second order: there the curvature counts half of what the integral
    gives; and here the first step is taken anew, along the line between its two ends, once x0 is known at the second,
    which needs no more evaluations.
    """

    @property
    def order(self) -> int:
        return 3

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
