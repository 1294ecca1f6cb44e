"""DPM-Solver++: the multistep solvers of Lu et al. 2022."""

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Cond
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.samplers.base import GaussianSampler, State
from ddpm.diffusion.samplers.multistep import (
    Past,
    combine,
    constant_x0,
    final_order,
    multistep_update,
    span,
    with_signal,
)


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

    The first step and the one to 0 are DDIM steps; the second is a step of 2M. Once x0 is known at the end of the first
    step, this step is repeated with x0 interpolated linearly between its ends, which needs no more evaluations.

    A parabola is extrapolated over the step, so it errs more than 2M's line where steps grow fast or are long. Steps in
    lambda that exceed `largest_step`, or the step before by the factor `largest_growth`, are steps of 2M. Both limits
    are reached only with few steps or uneven spacing, and the order is 3. For the code of the authors, see
    `PublishedDPMSolver3M`.
    """

    largest_growth: check.Limit = math.inf
    largest_step: check.Limit = math.inf
    order: ClassVar[int] = 3

    def step(self, denoiser: Denoiser, state: State, s: int, cond: Cond, draws: Draws) -> State:
        t, x_t = state.t, state.x_t
        prediction = denoiser(x_t, t, cond)
        here, schedule = Past(t, prediction.x0), self.process.schedule
        past, began = state.memory or DPMSolver3MMemory((), x_t)
        memory = DPMSolver3MMemory((here, *past[:1]), x_t)
        if len(past) == 1:
            x_t = multistep_update(schedule, began, past, t, here)
        known = with_signal(schedule, (here, *past))
        if len(known) == 3:
            h, before = span(schedule, s, t), span(schedule, t, known[1].t)
            known = known if h <= min(self.largest_step, self.largest_growth * before) else known[:2]
        return State(s, multistep_update(schedule, x_t, known[:1] if s == 0 else known, s), prediction, memory)


@dataclass(frozen=True)
class PublishedDPMSolver3M(GaussianSampler):
    """3M as in the authors' code and diffusers, deterministic: it uses half of the curvature of x0, so its order is 2.

    lower_order_final: the step before the last is one of 2M, for fewer than `lower_order_below` steps, 15 in diffusers.
    """

    lower_order_final: bool
    lower_order_below: check.Limit = math.inf
    order: ClassVar[int] = 2

    def step(self, denoiser: Denoiser, state: State, s: int, cond: Cond, draws: Draws) -> State:
        t, x_t = state.t, state.x_t
        prediction = denoiser(x_t, t, cond)
        schedule = self.process.schedule
        known = with_signal(schedule, (Past(t, prediction.x0), *(state.memory or ())))
        lower = self.lower_order_final and (self.steps or self.process.T) < self.lower_order_below
        order = final_order(len(known), state, s, lower)
        if order < 3:
            return State(s, multistep_update(schedule, x_t, known[:order], s), prediction, known[:2])
        h = span(schedule, s, t)
        r0, r1 = (span(schedule, one.t, other.t) / h for one, other in itertools.pairwise(known))
        of_x_t, of_x0 = constant_x0(schedule, s, t)
        slope = schedule.alpha(s) * (math.expm1(-h) / h + 1)  # factor of the slope of x0 at t, times h
        half_bend = schedule.alpha(s) * (0.5 - (math.expm1(-h) + h) / h**2)  # the integral has twice this
        # by divided differences d1, d2 over the last two intervals: slope = d1 + r0 bend, bend = (d1 - d2) / (r0 + r1)
        of_bend = (slope * r0 + half_bend) / (r0 + r1)
        of_d1, of_d2 = (slope + of_bend) / r0, -of_bend / r1
        parts = zip((of_x0 + of_d1, of_d2 - of_d1, -of_d2), (each.x0 for each in known), strict=True)
        return State(s, combine(x_t, of_x_t, *parts), prediction, known[:2])


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
