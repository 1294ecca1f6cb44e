"""Timing on a machine that others use too: every contender once a round, in rotated order, compared within it."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch


class Timing(NamedTuple):
    seconds: float  # median
    speed: float  # median over the rounds of (seconds of the first contender) / (own seconds)


@contextmanager
def one_thread() -> Iterator[None]:
    """Two that wait for each other vary most."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def between_ends(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, Timing]:
    """Of runs that say their own seconds. The first and the last are the same, and their mean is compared with."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, run in list(runs.items())[:: 1 if number % 2 else -1]:
            seconds[name].append(run())
    first, *_, last = seconds.values()
    ends = [(a + b) / 2 for a, b in zip(first, last, strict=True)]
    return {
        name: Timing(statistics.median(own), statistics.median(e / o for e, o in zip(ends, own, strict=True)))
        for name, own in seconds.items()
    }


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
