"""The snow of Cold Diffusion's own code, which is not that of ImageNet-C (Bansal et al. 2022, section 4.4)."""

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Time
from ddpm.diffusion.degradations.base import Degradation, fraction_of_T
from ddpm.diffusion.degradations.snow import whitened


class SnowfallLevel(NamedTuple):
    """One of the four levels in the authors' code. Pairs are the values at t = 1 and at t = T."""

    mean: float  # of the field of flakes
    zoom: float  # how large a flake is
    length: int  # of the streaks in pixels, odd
    threshold: tuple[float, float]  # of the field, below which there is no flake
    sigma: tuple[float, float]  # standard deviation of a streak, in pixels
    brightness: tuple[float, float]  # weight of the image against the whitened image


LEVELS = (
    SnowfallLevel(0.1, 3, 5, (0.7, 0.3), (0.5, 5), (0.95, 0.7)),
    SnowfallLevel(0.55, 2.5, 11, (1.15, 0.7), (0.05, 12), (0.95, 0.55)),
    SnowfallLevel(0.55, 2.5, 11, (1.15, 0.7), (0.05, 16), (0.95, 0.4)),
    SnowfallLevel(0.55, 2.5, 11, (1.15, 0.55), (0.05, 20), (0.95, 0.3)),
)
STD = 0.3
"""Standard deviation of the field of flakes, at every level."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Snowfall(Degradation):
    """Flakes with horizontal or vertical streaks, as likely for each sample, and their rotation by 180 degrees.

    The threshold, the streaks' standard deviation and the brightness are linear in t between the two values of the
    level. A streak is a convolution with a centred Gaussian, zero outside the image. whiten: whether the image is also
    brightened, by the weight 1 - brightness of max(image, 1.5 grey + 0.5). The authors draw one field for each batch;
    here each sample has its own.
    """

    level: Annotated[int, check.integers(1, len(LEVELS))]
    whiten: bool

    def draw(self, x0: Tensor, draws: Draws) -> Tensor:
        """z `[B, 1 + H W]`: 1 for vertical streaks or 0, and the field."""
        level, sides = LEVELS[self.level - 1], (x0.shape[-2], x0.shape[-1])
        coarse = tuple(math.ceil(side / level.zoom) for side in sides)
        field = enlarge(level.mean + STD * draws.normal("flakes", (1, *coarse)), level.zoom, sides)
        return torch.cat([(draws.uniform("direction") > 0.5).view(-1, 1), field.flatten(1)], 1).to(x0.dtype)

    def apply(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        if isinstance(t, int) and t == 0:
            return x0
        u = fraction_of_T(t - 1, max(self.T - 1, 1), x0)
        threshold, sigma, brightness = (first + u * (last - first) for first, last in LEVELS[self.level - 1][3:])
        field = z[:, 1:].view(-1, 1, *x0.shape[-2:])
        flakes = torch.where(field >= threshold, field, 0).clamp_(0, 1)
        weights = gaussian(LEVELS[self.level - 1].length, sigma, x0)
        vertical = z[:, 0].view(-1, 1, 1, 1) == 1
        streaks = torch.where(vertical, convolve_rows(flakes.mT, weights).mT, convolve_rows(flakes, weights))
        image = (x0 + 1) / 2
        if self.whiten:
            image = image + (1 - brightness) * (whitened(image) - image)
        x_t = (image + streaks + streaks.flip(-1, -2)).clamp_(0, 1) * 2 - 1
        return torch.where((t > 0).view(-1, 1, 1, 1), x_t, x0) if isinstance(t, Tensor) else x_t


def enlarge(coarse: Tensor, zoom: float, sides: tuple[int, int]) -> Tensor:
    """The middle `[B, 1, *sides]` of fields that are `zoom` times as large, linear between the corners' values."""
    large = [round(side * zoom) for side in coarse.shape[-2:]]
    top, left = ((larger - side) // 2 for larger, side in zip(large, sides, strict=True))
    field = F.interpolate(coarse, size=large, mode="bilinear", align_corners=True)
    return field[..., top : top + sides[0], left : left + sides[1]]


def gaussian(length: int, sigma: float | Tensor, like: Tensor) -> Tensor:
    """Weights `[B or 1, length]` of a centred Gaussian."""
    place = torch.arange(length, device=like.device, dtype=like.dtype) - length // 2
    spread = torch.as_tensor(sigma, dtype=like.dtype, device=like.device).view(-1, 1)
    return torch.softmax(-place.square() / (2 * spread.square()), 1)


def convolve_rows(image: Tensor, weights: Tensor) -> Tensor:
    """Convolve the rows of `[B, 1, H, W]` with symmetric `weights` `[B or 1, length]`, zero outside the image."""
    length = weights.shape[1]
    windows = F.pad(image, (length // 2, length // 2)).unfold(-1, length, 1)
    return torch.einsum("bchwl,bl->bchw", windows, weights.expand(len(image), -1))
