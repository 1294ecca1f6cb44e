"""The snow of ImageNet-C, which increases over time (Bansal et al. 2022, section 4.4 and appendix A.4)."""

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

ANGLES = (-135.0, -45.0)
"""Range of the direction of a sample's snow, in degrees; -90 is straight down."""
GREY = (0.299, 0.587, 0.114)
"""Luma weights of red, green and blue (ITU-R BT.601)."""


class SnowLevel(NamedTuple):
    """One of ImageNet-C's five severities (Hendrycks and Dietterich 2019, its code)."""

    mean: float  # of the field of flakes
    std: float
    zoom: float  # how large a flake is
    threshold: float  # of the field, below which there is no flake
    length: int  # of the streaks in pixels
    fading: float  # the standard deviation in pixels with which a streak fades
    brightness: float  # weight of the image against the whitened image


LEVELS = (
    SnowLevel(0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    SnowLevel(0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    SnowLevel(0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    SnowLevel(0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    SnowLevel(0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Snow(Degradation):
    """Flakes on a whitened image. They are the peaks of a smooth random field, streaked in one direction per sample.

    With u = t / T and pixels in [0, 1]: the flakes are the field above a threshold, which falls from mean + 3 std to
    that of the level. The streaks fade with the standard deviation u * fading. The whitened image is
    max(image, 1.5 grey + 0.5), with the weight u * (1 - brightness) against the image. The flakes and the flakes
    rotated by 180 degrees are added to it, and the sum is clamped.

    severity: 1..5 of ImageNet-C. length: of a streak in pixels; None: that of the level, designed for 224 pixels.
    Streaks are sums of whole-pixel shifts; ImageNet-C uses ImageMagick instead.
    """

    severity: Annotated[int, check.integers(1, len(LEVELS))]
    length: check.PositiveInt | None

    @property
    def level(self) -> SnowLevel:
        return LEVELS[self.severity - 1]

    def draw(self, x0: Tensor, draws: Draws) -> Tensor:
        """z `[B, 1 + H W]`: the angle in degrees, and the field."""
        low, high = ANGLES
        angle = low + (high - low) * draws.uniform("angle")
        sides = tuple(x0.shape[-2:])
        coarse = tuple(math.ceil(side / self.level.zoom) for side in sides)
        field = self.level.mean + self.level.std * draws.normal("flakes", (1, *coarse))
        field = F.interpolate(field, size=sides, mode="bilinear", align_corners=True)
        return torch.cat([angle.view(-1, 1), field.flatten(1)], 1).to(x0.dtype)

    def apply(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        u = fraction_of_T(t, self.T, x0)
        flakes = self.flakes(z, u, x0)
        image = (x0 + 1) / 2
        bright = image + u * (1 - self.level.brightness) * (whitened(image) - image)
        snowy = (bright + flakes + flakes.flip(-1, -2)).clamp_(0, 1) * 2 - 1
        if isinstance(t, int):
            return snowy if t > 0 else x0
        return torch.where((t > 0).view(-1, 1, 1, 1), snowy, x0)

    def flakes(self, z: Tensor, u: float | Tensor, like: Tensor) -> Tensor:
        """`[B, 1, H, W]` in [0, 1]."""
        angle, field = z[:, 0], z[:, 1:].view(-1, 1, *like.shape[-2:])
        none = self.level.mean + 3 * self.level.std
        threshold = none + u * (self.level.threshold - none)
        tops = torch.where(field >= threshold, field, 0).clamp_(0, 1)
        return streak(tops, angle, self.length or self.level.length, u * self.level.fading)


def whitened(image: Tensor) -> Tensor:
    """max(image, 1.5 grey + 0.5) of an image `[B, C, H, W]` in [0, 1]."""
    weights = image.new_tensor(GREY).view(-1, 1, 1) if image.shape[1] == 3 else 1 / image.shape[1]
    return torch.maximum(image, (image * weights).sum(1, keepdim=True) * 1.5 + 0.5)


def streak(image: Tensor, angle: Tensor, length: int, fading: float | Tensor) -> Tensor:
    """Motion blur of `[B, 1, H, W]`: a weighted mean of shifts by 0..length pixels at `angle` `[B]` in degrees.

    A shift by i has a weight proportional to exp(-i^2 / (2 fading^2)). Border pixels are repeated outside the image.
    """
    step = torch.arange(length + 1, device=image.device, dtype=image.dtype)
    spread = torch.as_tensor(fading, dtype=image.dtype, device=image.device).clamp(min=1e-3).view(-1, 1)
    weights = torch.softmax(-step.square() / (2 * spread.square()), 1)
    radians = torch.deg2rad(angle).view(-1, 1)
    height, width = image.shape[-2:]
    down = (step * torch.sin(-radians)).round().long()
    across = (step * torch.cos(radians)).round().long()
    rows = (torch.arange(height, device=image.device) - down[..., None]).clamp_(0, height - 1)
    columns = (torch.arange(width, device=image.device) - across[..., None]).clamp_(0, width - 1)
    batch = torch.arange(len(image), device=image.device).view(-1, 1, 1, 1)
    shifted = image[batch, 0, rows[..., :, None], columns[..., None, :]]
    return torch.einsum("bihw,bi->bhw", shifted, weights.expand(len(image), -1)).unsqueeze(1)
