"""Which times a sampler visits: `num_steps + 1` falling times from `start` to 0, both included, none twice."""

from typing import Protocol

from ddpm import check


class Grid(Protocol):
    def __call__(self, start: int, num_steps: int) -> list[int]: ...


def uniform(start: int, num_steps: int) -> list[int]:
    """Evenly spaced up to rounding."""
    check.integer("steps", num_steps, low=1, high=start)
    return [(2 * start * i + num_steps) // (2 * num_steps) for i in range(num_steps, -1, -1)]


def quadratic(start: int, num_steps: int) -> list[int]:
    """Spacing that grows with the time, dense near the clean end (Song et al. 2021, appendix D.2).

    Their code's own grid reaches up to 0.8 T only; this one starts at `start`. Where the parabola is flatter than one
    time a step, the grid takes every time.
    """
    check.integer("steps", num_steps, low=1, high=start)
    return [max(i, round(start * (i / num_steps) ** 2)) for i in range(num_steps, -1, -1)]
