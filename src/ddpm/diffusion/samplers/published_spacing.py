"""The times that other programs visit, so that their samples and published values can be reproduced.

Many of these lists begin below T. Sampling then treats noise of the prior as x at the first time, as those programs do.
From a start below T, the first time is replaced by the start, because there x has exactly the noise of the start. Times
are those of this project, 1 above those of the other programs, and end with 0 (`ending_at_1`: with 1).
"""

import itertools
import math
from collections.abc import Sequence

from ddpm.base import check
from ddpm.diffusion.samplers.timestep_spacing import TimestepSpacing, check_num_steps
from ddpm.diffusion.schedules.base import Schedule


def leading(start: int, num_steps: int, schedule: Schedule, offset: int = 0) -> list[int]:
    """Multiples of start // num_steps from 0, plus offset: "leading" with `steps_offset` in diffusers.

    They are also the times of "ddimN" in OpenAI's code, of the DDIM code and, with offset=1, of latent diffusion, where
    num_steps divides T.
    """
    check.integer("steps", num_steps, low=1, high=start)
    return _begin_at(start, [i * (start // num_steps) for i in range(num_steps)], schedule, offset)


def strided(start: int, num_steps: int, schedule: Schedule, offset: int = 0) -> list[int]:
    """As `leading`, but all multiples below start, which may be more than num_steps: 31 for 30 steps of 1000.

    They are the uniform times of the DDIM code (Song et al. 2021) and, with offset=1, of latent diffusion.
    """
    check.integer("steps", num_steps, low=1, high=start)
    return _begin_at(start, list(range(0, start, start // num_steps)), schedule, offset)


def linspace(start: int, num_steps: int, schedule: Schedule) -> list[int]:
    """Evenly spaced from 1 to start, both included: "linspace" in diffusers."""
    check.integer("steps", num_steps, low=1, high=start)
    return _begin_at(start, list(map(round, _even(start - 1, num_steps))), schedule)


def without_last(start: int, num_steps: int, schedule: Schedule, of: TimestepSpacing) -> list[int]:
    """The times of `of` with one step more, without the last: the times of multistep solvers in diffusers.

    With num_steps = start, where there is no step more, all times.
    """
    check.integer("steps", num_steps, low=1, high=start)
    times = _times_of(of, start, min(num_steps + 1, start), schedule)
    return [*times[:num_steps], 0]


def ending_at_1(start: int, num_steps: int, schedule: Schedule, of: TimestepSpacing) -> list[int]:
    """The times of `of`, with a last step that ends at 1 instead of 0, and none where it began at 1.

    `set_alpha_to_one=false` in diffusers, as for Stable Diffusion, and `final_sigmas_type="sigma_min"`: the sample is
    x_1, with the least noise of the schedule. From 1 there would be no step.
    """
    *times, _ = _times_of(of, start, num_steps, schedule)
    times = times if times[-1] == 1 else [*times, 1]
    if len(times) == 1:
        raise ValueError("the only step ends where it begins, at t = 1; choose more steps or another timestep_spacing")
    return times


def _times_of(of: TimestepSpacing, start: int, num_steps: int, schedule: Schedule) -> list[int]:
    """The times of `of`. A wrong offset is named as its field."""
    try:
        return of(start, num_steps, schedule)
    except ValueError as error:
        raise ValueError(str(error).replace("timestep_spacing.offset", "timestep_spacing.of.offset")) from error


def ddim_quadratic(start: int, num_steps: int, schedule: Schedule, offset: int = 0) -> list[int]:
    """Squares from 0 to 0.8 start, rounded down: the quadratic times of the DDIM code (Song et al. 2021).

    That code repeats times near 0 for many steps. A repeated step changes nothing in DDIM, so each time is visited
    once, and there may be fewer steps than num_steps. offset=1: of latent diffusion.
    """
    check.integer("steps", num_steps, low=1, high=start)
    squares = {int(root * root) for root in _even(math.sqrt(0.8 * start), num_steps)}
    return _begin_at(start, sorted(squares), schedule, offset)


def respaced(start: int, num_steps: int, schedule: Schedule, sections: Sequence[int] | str | None = None) -> list[int]:
    """`timestep_respacing` of OpenAI's code (Nichol and Dhariwal 2021): even times, both ends included.

    sections: numbers of steps of equally long parts of 1..T, as [10, 15, 20] from the cleanest; "ddimN" is N times from
    1 in whole strides; None is one section of num_steps. A lower `start` uses the times of the sections below it.
    """
    T = schedule.T
    if sections is None:
        check.integer("steps", num_steps, low=1, high=start)
        return _begin_at(start, _section(start, num_steps), schedule)
    if isinstance(sections, str):
        strides = (range(0, T, stride) for stride in range(1, T + 1))
        places = next((list(each) for each in strides if f"ddim{len(each)}" == sections), None)
        if places is None:
            check.fail(
                "timestep_spacing.sections",
                sections,
                f"'ddimN', where N whole strides fill {T} times, or numbers of steps",
            )
    elif not sections:
        check.fail("timestep_spacing.sections", sections, "numbers of steps, as [10, 15, 20], or 'ddimN'")
    else:
        sizes = [T // len(sections) + (i < T % len(sections)) for i in range(len(sections))]
        for count, size in zip(sections, sizes, strict=True):
            check.integer("timestep_spacing.sections", count, low=1, high=size)
        firsts = itertools.accumulate(sizes, initial=0)
        places = [first + i for first, size, n in zip(firsts, sizes, sections) for i in _section(size, n)]  # noqa: B905
    times = [place + 1 for place in reversed(places)]
    check_num_steps("sections", start, num_steps, len(times), T)
    return [*times, 0] if start == T else [start, *(t for t in times if t < start), 0]


def _section(size: int, count: int) -> list[int]:
    """Evenly spaced numbers from 0 to size - 1, added up as in OpenAI's code, which decides how halves are rounded."""
    stride = (size - 1) / (count - 1) if count > 1 else 1.0
    return [round(place) for place in itertools.accumulate(itertools.repeat(stride, count - 1), initial=0.0)]


def _even(end: float, count: int) -> list[float]:
    """As numpy.linspace(0, end, count)."""
    return [0.0] if count == 1 else [*(i * (end / (count - 1)) for i in range(count - 1)), float(end)]


def _begin_at(start: int, places: list[int], schedule: Schedule, offset: int = 0) -> list[int]:
    """Falling times, 1 + offset above the rising `places`; at most `start`, which only an offset may exceed."""
    check.non_negative_int("timestep_spacing.offset", offset)
    first = 1 + min(offset, start - 1 - places[-1])
    falling = [place + first for place in reversed(places)]
    return [*falling, 0] if start == schedule.T else [start, *falling[1:], 0]
