"""Timing on a machine that others use too: every contender once a round, in rotated order, compared within it."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Timing(NamedTuple):
    seconds: float  # median
    speed: float  # median over the rounds of (seconds of the first contender) / (own seconds)


def measure(contenders: dict[str, Callable[[], object]], rounds: int, warmup: int = 2) -> dict[str, Timing]:
    """The first contender is what the others are compared with."""
    for run in contenders.values():
        for _ in range(warmup):
            run()
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            contenders[name]()
            seconds[name].append(time.perf_counter() - start)
    base = seconds[names[0]]
    return {
        name: Timing(statistics.median(own), statistics.median(b / o for b, o in zip(base, own, strict=True)))
        for name, own in seconds.items()
    }
