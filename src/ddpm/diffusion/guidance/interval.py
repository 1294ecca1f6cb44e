"""Guidance between two levels of noise alone (Kynkaanniemi et al. 2024, "Applying Guidance in a Limited Interval")."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Time
from ddpm.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True)
class Interval:
    """low <= sigma_t / alpha_t <= high, the noise level of Karras et al. 2022."""

    low: float
    high: float

    def holds(self, schedule: NoiseSchedule, t: Time) -> bool | Tensor:
        """Whether t lies in it: one answer for an int, bool `[B]` for times `[B]`."""
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)  # compared so, as alpha may be 0 and high infinite
        if isinstance(t, int):
            return bool(self.low * alpha <= sigma) and bool(sigma / self.high <= alpha)
        return (self.low * alpha <= sigma) & (sigma / self.high <= alpha)


def interval(bounds: Sequence[float] | None) -> Interval | None:
    """None: everywhere. ValueError unless bounds are [low, high]."""
    if bounds is None:
        return None
    if not isinstance(bounds, Sequence) or isinstance(bounds, str) or len(bounds) != 2:
        check.fail("interval", bounds, "null or two noise levels sigma / alpha, as [0.3, 5.0]")
    low, high = (check.number("interval", bound, low=0) for bound in bounds)
    if low >= high:
        check.fail("interval", list(bounds), "[low, high] with low < high")
    return Interval(low, high)


def scale_at(scale: float, within: Interval | None, schedule: NoiseSchedule, t: Time) -> float | Tensor:
    """The scale within the interval and 1, no guidance, outside: a float for an int, float64 `[B]` for times."""
    if within is None:
        return scale
    holds = within.holds(schedule, t)
    return torch.where(holds, scale, 1.0).double() if isinstance(holds, Tensor) else (scale if holds else 1.0)
