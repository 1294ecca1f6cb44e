"""Simplex noise of 256 x 256 pixels and six octaves, on one thread, against the opensimplex package.

The package's time is that of 8 of 256 rows; its own loop over an array is compiled where numba is installed, and plain
Python elsewhere. White noise is what simplex noise takes the place of.
"""

from importlib.util import find_spec
from typing import Any

import numpy as np
import opensimplex
import torch

from benchmarks.interleaved import measure
from ddpm.base.rng import Rng
from ddpm.diffusion.noises.base import WHITE
from ddpm.diffusion.noises.simplex import Simplex

SIZE, ROWS = 256, 8
NOISE = Simplex(octaves=6, persistence=0.8, frequency=64, unit_variance=True)
STEPS = [2**octave / NOISE.frequency for octave in range(NOISE.octaves)]


def pixel_by_pixel() -> None:
    for step in STEPS:
        for row in range(ROWS):
            for column in range(SIZE):
                opensimplex.noise3(step * column, step * row, 0.3)


def as_array() -> None:
    columns, rows = np.arange(SIZE), np.arange(ROWS)
    for step in STEPS:
        opensimplex.noise3array(step * columns, step * rows, np.array([0.3]))


def rows(rounds: int) -> list[dict[str, Any]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    draws = {num: Rng(0, "train").at(1, torch.arange(num)) for num in (1, 8)}
    compiled = "compiled by numba" if find_spec("numba") else "without numba"
    contenders = {
        "opensimplex.noise3, a loop over pixels": (SIZE / ROWS, pixel_by_pixel),
        f"opensimplex.noise3array, {compiled}": (SIZE / ROWS, as_array),
        "simplex, a batch of 1": (1, lambda: NOISE(draws[1], "noise", (1, SIZE, SIZE))),
        "simplex, a batch of 8": (1 / 8, lambda: NOISE(draws[8], "noise", (1, SIZE, SIZE))),
        "white noise, a batch of 8": (1 / 8, lambda: WHITE(draws[8], "noise", (1, SIZE, SIZE))),
    }
    found = measure({name: run for name, (_, run) in contenders.items()}, rounds, warmup=1)
    torch.set_num_threads(threads)
    seconds = {name: share * found[name].seconds for name, (share, _) in contenders.items()}
    base = next(iter(seconds.values()))
    return [
        {"noise": name, "milliseconds an image": f"{1e3 * own:.1f}", "times as fast": f"{base / own:.0f}"}
        for name, own in seconds.items()
    ]
