"""Simplex noise of several octaves, whose power falls with frequency (Wyatt et al. 2022, "AnoDDPM", section 3)."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.diffusion.noises.open_simplex import VARIANCE, planes

PERIOD = 256
"""Period of the table of gradients in lattice units."""


@dataclass(frozen=True)
class Simplex(check.Checked):
    """Octaves of OpenSimplex noise, each with half the wavelength and `persistence` times the amplitude of the last.

    frequency: pixels per lattice unit in the first octave, a name from AnoDDPM. Each image and channel has its own
    table of gradients, and each octave its own random place in the lattice; in AnoDDPM all octaves begin at the origin.
    So all pixels have the same variance, 0.0985 sum of persistence^(2 i).

    unit_variance: divide by the standard deviation. AnoDDPM does not: with six octaves at 0.8 its noise has a standard
    deviation of about 0.5, so x_T has half the noise of the schedule, and a higher SNR.
    """

    octaves: Annotated[int, check.integers(1, 16)]
    persistence: check.PositiveNumber
    frequency: check.PositiveNumber
    unit_variance: bool

    white: ClassVar[bool] = False

    @property
    def std(self) -> float:
        """Standard deviation of the sum of octaves."""
        return math.sqrt(VARIANCE * sum(self.persistence ** (2 * i) for i in range(self.octaves)))

    def __call__(self, draws: Draws, stream: str, shape: tuple[int, ...]) -> Tensor:
        channels, height, width = shape
        bits = draws.bits(f"{stream}, gradients", channels * PERIOD)
        permutations = bits.view(-1, PERIOD).argsort(dim=1, stable=True)  # of each image and channel
        places = draws.uniform(f"{stream}, places", (channels, self.octaves, 3)).double() * PERIOD
        noise = torch.zeros(len(permutations), height, width, device=bits.device)
        for octave, origins in enumerate(places.flatten(0, 1).unbind(1)):
            drawn = planes(permutations, origins, 2**octave / self.frequency, (height, width), torch.float32)
            noise.add_(drawn, alpha=self.persistence**octave)
        return (noise / self.std if self.unit_variance else noise).view(-1, *shape)
