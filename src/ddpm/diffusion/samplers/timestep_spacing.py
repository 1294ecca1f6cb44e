"""Which times a sampler visits: `num_steps + 1` falling times from `start` to 0, both included, none twice.

Those of other programs, which may begin below T, are in `published_spacing`.
"""

import bisect
import math
from collections.abc import Callable, Sequence
from typing import Protocol

from ddpm.base import check
from ddpm.diffusion.schedules.base import Schedule


class TimestepSpacing(Protocol):
    def __call__(self, start: int, num_steps: int, schedule: Schedule) -> list[int]: ...


def uniform(start: int, num_steps: int, schedule: Schedule | None = None) -> list[int]:
    """Evenly spaced up to rounding."""
    check.integer("steps", num_steps, low=1, high=start)
    return [(2 * start * i + num_steps) // (2 * num_steps) for i in range(num_steps, -1, -1)]


def trailing(start: int, num_steps: int, schedule: Schedule | None = None) -> list[int]:
    """As `uniform`, with halves rounded to even: diffusers' timestep_spacing="trailing" (Lin et al. 2024, table 2)."""
    check.integer("steps", num_steps, low=1, high=start)
    return [*(round(start - i * (start / num_steps)) for i in range(num_steps)), 0]


def quadratic(start: int, num_steps: int, schedule: Schedule | None = None) -> list[int]:
    """Spacing that increases with time, dense near 0 (Song et al. 2021, appendix D.2).

    Their code starts at 0.8 T (see `ddim_quadratic`); this function starts at `start`. Where the parabola would repeat
    times, every time is visited once.
    """
    check.integer("steps", num_steps, low=1, high=start)
    return [max(i, round(start * (i / num_steps) ** 2)) for i in range(num_steps, -1, -1)]


def rho(start: int, num_steps: int, schedule: Schedule, rho: float, sigma_max: float = math.inf) -> list[int]:
    """Even in (sigma / alpha)^(1 / rho) from `start` to 1, then 0 (Karras et al. 2022, eq. 5; rho = 7 there).

    If sigma / alpha at `start` exceeds sigma_max, the first step leads to sigma_max (80 in the paper, the start there).
    """
    check.positive_number("timestep_spacing.rho", rho)
    check.positive_number("timestep_spacing.sigma_max", sigma_max)

    def place(t: int) -> float:
        return float(schedule.snr(t) ** (-1 / (2 * rho))) if schedule.snr(t) else math.inf

    return even_in(place, start, num_steps, sigma_max ** (1 / rho))


def log_snr(start: int, num_steps: int, schedule: Schedule) -> list[int]:
    """Even in the logarithm of the signal-to-noise ratio from `start` to 1, then 0 (Lu et al. 2022, section 3.4)."""

    def place(t: int) -> float:
        return -math.log(schedule.snr(t)) if schedule.snr(t) else math.inf

    return even_in(place, start, num_steps)


def custom(start: int, num_steps: int, schedule: Schedule, times: Sequence[int]) -> list[int]:
    """The given falling times; a lower `start` uses those below it. num_steps must match their number, or be T."""
    inner = [check.integer("timestep_spacing.times", t, low=1, high=schedule.T) for t in times]
    if sorted(set(inner), reverse=True) != inner:
        check.fail("timestep_spacing.times", inner, "falling, none twice, as [1000, 500, 100]")
    visited = [start, *(t for t in inner if t < start), 0]
    check_num_steps("times", start, num_steps, len(visited) - 1, schedule.T)
    return visited


def check_num_steps(field: str, start: int, num_steps: int, made: int, T: int) -> None:
    """Raise ValueError if a field gives the steps from T, and another number of steps is chosen."""
    if start == T and num_steps not in (T, made):
        raise ValueError(f"timestep_spacing.{field} make {made} steps, so leave sampler.steps={num_steps} out or null")


def even_in(place: Callable[[int], float], start: int, num_steps: int, largest: float = math.inf) -> list[int]:
    """Times from `start` to 1, even in the increasing `place(t)`, rounded to the nearest unused time, and then 0.

    If place(start) is infinite (no signal is left), the spacing is that from start - 1. If it exceeds `largest`, the
    first step leads to `largest`, and the spacing is even from there.
    """
    check.integer("steps", num_steps, low=1, high=start)
    places = [place(t) for t in range(1, start + 1)]
    top = places[-1] if math.isfinite(places[-1]) or start == 1 else places[-2]
    jumps = int(top > largest and num_steps > 2)  # the first step leads to `largest`
    top = min(top, largest) if jumps else top
    found = [start]
    for i in range(1, num_steps):
        wanted = top + (places[0] - top) * (i - jumps) / (num_steps - 1 - jumps)
        above = min(max(bisect.bisect_left(places, wanted), 1), len(places) - 1)  # an index: time - 1
        nearest = above + (wanted - places[above - 1] > places[above] - wanted)
        found.append(min(max(nearest, num_steps - i), found[-1] - 1))
    return [*found, 0]
