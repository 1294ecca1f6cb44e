"""The samplers of Karras et al. 2022 (algorithm 2) on the times of a discrete model, where noise is sigma / alpha.

They solve the probability-flow ODE in sigma / alpha. Their x is x_t / alpha_t. Noise is added up to the nearest of the
T times, which is what they too do with such models.
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
    """churn: S_churn, how much noise a run adds, over all its steps; 0 is deterministic. churn_low, churn_high: only
    where sigma / alpha lies between these (S_tmin, S_tmax). noise_scale: of the added noise (S_noise)."""

    churn: float
    churn_low: float
    churn_high: float
    noise_scale: float

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("churn", "churn_low", "noise_scale"):
            check.number(name, getattr(self, name), low=0)
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
        """From x_t to x_s without noise."""


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
    """Heun's method: Euler's step, and once more with the mean of the slopes at both ends: two evaluations.

    The step to 0 is Euler's, and so is any in which the noise falls more than tenfold, as in the first under
    schedule=cosine on an even grid: what the mean of the slopes corrects there is less than what it adds.
    """

    order: ClassVar[int] = 2

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


LARGEST_FALL = 10
"""Of sigma / alpha in one step, up to which a slope at its end says something of the slope on the way."""


def is_long(schedule: NoiseSchedule, s: int, t: int) -> bool:
    """Whether noise falls so far from t to s that only DDIM's step, with x0 held constant, can be trusted.

    So it does to s = 0, and from where no signal is left. With eps taken from elsewhere, what x0 differs there counts
    as many times as the noise falls.
    """
    return schedule.half_log_snr(s) - schedule.half_log_snr(t) > math.log(LARGEST_FALL)


def noise_ratio(schedule: NoiseSchedule, t: int) -> float:
    """sigma / alpha, their sigma; infinite where no signal is left."""
    return math.exp(-schedule.half_log_snr(t))
