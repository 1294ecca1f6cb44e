"""The time at which an image is as noisy as one that was measured."""

import math

from ddpm.base import check
from ddpm.diffusion.schedule import NoiseSchedule


def time_of_snr(schedule: NoiseSchedule, snr: float) -> int:
    """The t in 1..T whose signal-to-noise ratio alpha^2 / sigma^2 is nearest to snr, by their logarithms."""
    wanted = math.log(check.positive_number("snr", snr)) / 2
    return min(range(1, schedule.T + 1), key=lambda t: abs(schedule.half_log_snr(t) - wanted))
