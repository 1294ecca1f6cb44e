"""Simplex noise: smooth noise of several wavelengths, for anomalies larger than a pixel (AnoDDPM, Wyatt et al. 2022)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddpm import check
from ddpm.diffusion.noises import open_simplex
from ddpm.rng import Draws


@dataclass(frozen=True)
class Simplex:
    """The sum over octaves i = 0, 1, ... of persistence^i times OpenSimplex noise of wavelength frequency / 2^i pixels.

    An image is a plane through noise in three dimensions. Theirs takes the time for the third axis, begins in a corner
    of the lattice and is one for a whole batch; here every octave of every channel of every image has a permutation
    and a place of its own, so channels and images are independent and no pixel differs from another.

    frequency: of the first octave, a wavelength in pixels under the name that it has in their paper.
    unit_variance: divide by the standard deviation, so that a process which preserves variance does. Theirs does not:
    with 6 octaves of persistence 0.8 the amplitudes add up to 3.689, of which about 1.8 is reached, and the standard
    deviation is 0.50, so that their x_T is half as strong as noise of unit variance.
    """

    octaves: int
    persistence: float
    frequency: float
    unit_variance: bool
    white: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check.integer("octaves", self.octaves, 1, 16)
        if check.positive_number("persistence", self.persistence) > 1:
            check.fail("persistence", self.persistence, "at most 1: a share of the octave before")
        check.positive_number("frequency", self.frequency)
        check.boolean("unit_variance", self.unit_variance)

    @property
    def variance(self) -> float:
        """Of every pixel, before any division."""
        return open_simplex.VARIANCE * sum(self.persistence ** (2 * i) for i in range(self.octaves))

    def __call__(self, draws: Draws, stream: str, shape: tuple[int, ...]) -> Tensor:
        """float32 `[B, C, H, W]` for a shape (C, H, W)."""
        if len(shape) != 3:
            check.fail("the shape under noise=simplex", list(shape), "channels, height and width: images")
        channels, height, width = shape
        num = channels * self.octaves
        keys = draws.bits(f"{stream}/permutation", num * 256).view(-1, channels, self.octaves, 256)
        permutations = keys.argsort(dim=-1, stable=True)
        places = draws.uniform(f"{stream}/place", (channels, self.octaves, 3)).double() * open_simplex.PERIOD
        noise = torch.zeros(len(draws.ids) * channels, height, width, device=draws.ids.device)
        for i in range(self.octaves):
            of_octave = permutations[:, :, i].flatten(0, 1), places[:, :, i].flatten(0, 1)
            octave = open_simplex.planes(*of_octave, 2**i / self.frequency, (height, width))
            noise.add_(octave, alpha=self.persistence**i)
        if self.unit_variance:
            noise.div_(math.sqrt(self.variance))
        return noise.view(-1, *shape)
