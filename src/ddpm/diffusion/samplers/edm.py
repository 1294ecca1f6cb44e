"""The samplers of Karras et al. 2022 (algorithm 2) on the times of a discrete model.

They solve the probability-flow ODE in sigma / alpha, the sigma of the paper; its x is x_t / alpha_t. Noise is added up
to the nearest of the T times, as in the paper for discrete models.
"""

import itertools
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Cond
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.samplers.base import GaussianSampler, State
from ddpm.diffusion.samplers.multistep import combine, constant_x0
from ddpm.diffusion.schedules.base import NoiseSchedule


@dataclass(frozen=True)
class EDMSampler(GaussianSampler):
    """churn: S_churn, the amount of noise added over all steps; 0 is deterministic. churn_low, churn_high: range of
    sigma / alpha in which noise is added (S_tmin, S_tmax). noise_scale: factor of the added noise (S_noise)."""

    churn: check.NonNegativeNumber
    churn_low: check.NonNegativeNumber
    churn_high: check.Limit
    noise_scale: check.NonNegativeNumber

    def __post_init__(self) -> None:
        super().__post_init__()
        check.number("churn_high", self.churn_high, low=self.churn_low)

    def step(self, denoiser: Denoiser, state: State, s: int, cond: Cond, draws: Draws) -> State:
        t, x = state.t, state.x_t
        noisier = self.churned(t)
        if noisier > t:
            z = self.process.reverse_noise_like(draws, "churn", x)
            t, x = noisier, self.process.advance(x, t, noisier, z * self.noise_scale)
        return self.solve(denoiser, State(t, x), s, cond)

    def churned(self, t: int) -> int:
        """The time to which noise is added before the step from t."""
        ratio = noise_ratio(self.process.schedule, t)
        if not self.churn_low <= ratio <= self.churn_high:
            return t
        wanted = ratio * (1 + min(self.churn / (self.steps or self.process.T), math.sqrt(2) - 1))
        above = t
        while above < self.process.T and noise_ratio(self.process.schedule, above) < wanted:
            above += 1
        below = max(above - 1, t)
        nearer = wanted - noise_ratio(self.process.schedule, below) < noise_ratio(self.process.schedule, above) - wanted
        return below if nearer else above

    @abstractmethod
    def solve(self, denoiser: Denoiser, state: State, s: int, cond: Cond) -> State:
        """A deterministic step from x_t to x_s."""


@dataclass(frozen=True)
class Euler(EDMSampler):
    """Euler's method (table 1): without churn it is DDIM with eta 0."""

    order: ClassVar[int] = 1

    def solve(self, denoiser: Denoiser, state: State, s: int, cond: Cond) -> State:
        prediction = denoiser(state.x_t, state.t, cond)
        of_x_t, of_x0 = constant_x0(self.process.schedule, s, state.t)
        return State(s, combine(state.x_t, of_x_t, (of_x0, prediction.x0)), prediction)


@dataclass(frozen=True)
class Heun(EDMSampler):
    """Heun's method: an Euler step, which is repeated with the mean of the slopes at both ends; two evaluations.

    The step to 0 is an Euler step. So is a step from a sigma / alpha above `euler_above` in which it falls more than
    tenfold, such as the first with schedule=cosine and uniform spacing: see `is_long`. The paper starts at 80, so a
    larger `euler_above` is its method; 0 means wherever it falls so far, and infinity means never.
    """

    euler_above: check.Limit = 0.0
    order: ClassVar[int] = 2

    def evaluations(self) -> int:
        pairs = ((self.churned(t), s) for t, s in itertools.pairwise(self.times(self.process.T)))
        return sum(1 if is_long(self.process.schedule, s, t, self.euler_above) else 2 for t, s in pairs)

    def solve(self, denoiser: Denoiser, state: State, s: int, cond: Cond) -> State:
        t, x_t, schedule = state.t, state.x_t, self.process.schedule
        prediction = denoiser(x_t, t, cond)
        of_x_t, of_x0 = constant_x0(schedule, s, t)
        x_s = combine(x_t, of_x_t, (of_x0, prediction.x0))
        if is_long(schedule, s, t, self.euler_above):
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


LARGEST_FALL = 10
"""The largest factor by which sigma / alpha may fall in a step that uses the slope at its end."""


def is_long(schedule: NoiseSchedule, s: int, t: int, above: float) -> bool:
    """Whether only the DDIM step, with constant x0, is reliable from t to s: to 0, from where no signal is left, and
    from a sigma / alpha above `above` if it falls more than `LARGEST_FALL`.

    A step with an eps from another time multiplies the difference in x0 by the factor of the fall. If sigma / alpha is
    far above the spread of the data at t and not at s, this difference is large. Below the spread, eps hardly changes,
    and such a step is better than DDIM's.
    """
    fall = schedule.half_log_snr(s) - schedule.half_log_snr(t)
    return math.isinf(fall) or (fall > math.log(LARGEST_FALL) and noise_ratio(schedule, t) > above)


def noise_ratio(schedule: NoiseSchedule, t: int) -> float:
    """sigma / alpha, the sigma of the paper; infinite where no signal is left."""
    return math.exp(-schedule.half_log_snr(t))
