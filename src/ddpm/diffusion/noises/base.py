"""The noise that Gaussian diffusion adds, in reverse steps too unless process.reverse_noise=white."""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws


class Noise(Protocol):
    @property
    def white(self) -> bool:
        """Whether all its numbers are independent standard normals, which likelihoods and scores assume."""
        ...

    def __call__(self, draws: Draws, stream: str, shape: tuple[int, ...]) -> Tensor:
        """Noise of mean 0, float32 `[B, *shape]`; a sample's noise depends only on its own draws."""
        ...


@dataclass(frozen=True)
class White:
    """Independent standard normals (Ho et al. 2020)."""

    white: ClassVar[bool] = True

    def __call__(self, draws: Draws, stream: str, shape: tuple[int, ...]) -> Tensor:
        return draws.normal(stream, shape)


WHITE = White()


@dataclass(frozen=True)
class Offset(check.Checked):
    """White noise plus `strength` times one normal number per channel, to learn the mean of images (Guttenberg 2023).

    unit_variance: divide by sqrt(1 + strength^2). Before that, two pixels of a channel have the covariance strength^2.
    """

    strength: check.NonNegativeNumber
    unit_variance: bool

    white: ClassVar[bool] = False

    def __call__(self, draws: Draws, stream: str, shape: tuple[int, ...]) -> Tensor:
        whole = draws.normal(f"{stream}, offset", (shape[0], 1, 1))
        noise = draws.normal(stream, shape).add_(whole, alpha=self.strength)
        return noise.div_(math.sqrt(1 + self.strength**2)) if self.unit_variance else noise


def demand_white(noise: Noise) -> None:
    """ValueError unless the noise is white; called by methods that are valid only for white noise."""
    if not noise.white:
        raise ValueError(
            f"likelihoods and scores need white noise, and this process adds {type(noise).__name__}: choose "
            "noise=gaussian, or a loss, sampler and metric without them (loss=simple, sampler=ddim, metric=fid)"
        )
