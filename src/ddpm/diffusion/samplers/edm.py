"""The sampler of Karras et al. 2022 (algorithm 2) on the times of a discrete model, where noise is sigma / alpha.

Their x is x_t / alpha_t. Noise is added up to the nearest of the T times, which is what they too do with such models.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Cond
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.samplers.base import GaussianSampler, State
from ddpm.diffusion.schedule import NoiseSchedule


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
