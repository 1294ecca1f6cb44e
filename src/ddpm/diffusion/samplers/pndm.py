"""Pseudo numerical methods for the predicted noise (Liu et al. 2022): F-PNDM (algorithm 2, eqs. 11-13), and PLMS."""

import functools
import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Cond, Prediction
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.samplers.base import GaussianSampler, State
from ddpm.diffusion.samplers.edm import is_long
from ddpm.diffusion.samplers.multistep import combine
from ddpm.diffusion.schedules.base import NoiseSchedule


@dataclass(frozen=True)
class PNDM(GaussianSampler):
    """The DDIM step with an eps from a linear multistep method of fourth order over the last four values.

    The weights are computed for the visited times; for uniform spacing they are those of Adams-Bashforth. The first
    three steps are Runge-Kutta steps with four evaluations. If sigma / alpha falls more than tenfold in one of them,
    from above `euler_above` (see `is_long`), as with schedule=cosine and uniform spacing, it is a DDIM step. The method
    is of second order (Liu et al. 2022, theorem 3.1), because the DDIM step holds eps constant. Clipping changes each
    eps, not their sum.
    """

    euler_above: check.Limit = 0.0
    order: ClassVar[int] = 2

    def evaluations(self) -> int:
        times = self.times(self.process.T)
        return len(times) - 1 + 3 * sum(self.starts_up(t, s) for t, s in itertools.pairwise(times[:4]))

    def starts_up(self, t: int, s: int) -> bool:
        """Whether there is a time between t and s, and slopes there are reliable."""
        return t - s >= 2 and not is_long(self.process.schedule, s, t, self.euler_above)

    def step(self, denoiser: Denoiser, state: State, s: int, cond: Cond, draws: Draws) -> State:
        t, x_t, past = state.t, state.x_t, state.memory or ()
        prediction = denoiser(x_t, t, cond)
        eps = self.process.recover_noise(x_t, prediction.x0, t)
        past = ((t, eps), *past[:3])
        if len(past) <= 3 and self.starts_up(t, s):
            slope, prediction = self.runge_kutta(denoiser, x_t, eps, t, s, cond)
        elif len(past) == 1:
            return State(s, self.process.apply(prediction.x0, eps, s), prediction, past)
        else:
            weights = adams_weights(tuple(t for t, _ in past), s)
            slope = combine(eps, weights[0], *zip(weights[1:], (e for _, e in past[1:]), strict=False))
        return State(s, transfer(self.process.schedule, x_t, slope, s, t), prediction, past)

    def runge_kutta(
        self, denoiser: Denoiser, x_t: Tensor, eps: Tensor, t: int, s: int, cond: Cond
    ) -> tuple[Tensor, Prediction]:
        """The mean slope of eq. 13, and the last prediction of x0."""
        middle = t - (t - s) // 2
        total, prediction = eps, Prediction(x_t)
        for time, weight in ((middle, 2), (middle, 2), (s, 1)):
            x = transfer(self.process.schedule, x_t, eps, time, t)
            prediction = denoiser(x, time, cond)
            eps = self.process.recover_noise(x, prediction.x0, time)
            total = total + weight * eps
        return total / 6, prediction


@dataclass(frozen=True)
class PLMS(GaussianSampler):
    """As PNDM, but the first step is one of Heun in eps, with two evaluations, and the order rises by one per step.

    It is the sampler of latent diffusion's `plms.py`, and diffusers' PNDM with skip_prk_steps=true. Their weights are
    those of equal steps; here they are computed for the visited times.
    """

    order: ClassVar[int] = 2

    def evaluations(self) -> int:
        t, s, *_ = times = self.times(self.process.T)
        return len(times) - 1 + (not is_long(self.process.schedule, s, t, math.inf))

    def step(self, denoiser: Denoiser, state: State, s: int, cond: Cond, draws: Draws) -> State:
        t, x_t, past, schedule = state.t, state.x_t, state.memory or (), self.process.schedule
        prediction = denoiser(x_t, t, cond)
        eps = self.process.recover_noise(x_t, prediction.x0, t)
        past = ((t, eps), *past[:3])
        if len(past) == 1:
            x_s = self.process.apply(prediction.x0, eps, s)
            if is_long(schedule, s, t, math.inf):
                return State(s, x_s, prediction, past)
            eps = (eps + self.process.recover_noise(x_s, denoiser(x_s, s, cond).x0, s)) / 2
            return State(s, transfer(schedule, x_t, eps, s, t), prediction, past)
        weights = adams_weights(tuple(t for t, _ in past), s)
        slope = combine(eps, weights[0], *zip(weights[1:], (e for _, e in past[1:]), strict=False))
        return State(s, transfer(schedule, x_t, slope, s, t), prediction, past)


def transfer(schedule: NoiseSchedule, x_t: Tensor, eps: Tensor, s: int, t: int) -> Tensor:
    """The DDIM step from t to s with a given eps (eq. 11)."""
    signal = schedule.alpha(s) / schedule.alpha(t)
    return (x_t * signal).add_(eps, alpha=schedule.sigma(s) - schedule.sigma(t) * signal)


LARGEST_WEIGHT = 5  # it is 2.5 for uniform spacing


@functools.lru_cache(maxsize=10_000)  # the same for every batch
def adams_weights(times: tuple[int, ...], s: int) -> list[float]:
    """Weights of values at `times`, newest first, in the mean over times[0]..s of the polynomial through them.

    The oldest values are left out while a weight exceeds LARGEST_WEIGHT, which happens if steps grow fast.
    """
    places = torch.tensor([(t - times[0]) / (s - times[0]) for t in times], dtype=torch.float64)
    powers = torch.stack([places**k for k in range(len(times))])
    means = torch.tensor([1 / (k + 1) for k in range(len(times))], dtype=torch.float64)
    weights = torch.linalg.solve(powers, means).tolist()
    return weights if max(map(abs, weights)) <= LARGEST_WEIGHT else adams_weights(times[:-1], s)
