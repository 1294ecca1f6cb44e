"""Offset noise, so that a model learns to change the mean of an image (Guttenberg 2023)."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws


@dataclass(frozen=True)
class Offset:
    """White noise and `strength` times one normal number for each channel.

    unit_variance: divide by sqrt(1 + strength^2). Two pixels of a channel have the covariance strength^2 before it.
    """

    strength: float
    unit_variance: bool

    white: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check.number("noise.strength", self.strength, low=0)
        check.boolean("noise.unit_variance", self.unit_variance)

    def __call__(self, draws: Draws, stream: str, shape: tuple[int, ...]) -> Tensor:
        whole = draws.normal(f"{stream}, offset", (shape[0], 1, 1))
        noise = draws.normal(stream, shape).add_(whole, alpha=self.strength)
        return noise.div_(math.sqrt(1 + self.strength**2)) if self.unit_variance else noise
