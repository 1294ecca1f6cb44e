"""Pyramid noise, of many resolutions at once (Whitaker 2023, "Multi-resolution noise for diffusion model training")."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.diffusion.degradations.separable import resize_matrix


@dataclass(frozen=True, eq=False)
class Pyramid(check.Checked):
    """White noise plus smaller white images, enlarged bilinearly: level i has sides of 2^-i and the weight discount^i.

    The last level has one pixel along the longer side. Each level halves the sides; the original draws a factor of 2
    to 4 for each batch instead.

    unit_variance: divide each pixel by its standard deviation, which varies over an enlarged image.
    """

    discount: check.Share
    unit_variance: bool
    _tables: dict[tuple[int, int, torch.device], list[tuple[Tensor, Tensor]]] = field(
        default_factory=dict, init=False, repr=False
    )

    white: ClassVar[bool] = False

    def __call__(self, draws: Draws, stream: str, shape: tuple[int, ...]) -> Tensor:
        channels, height, width = shape
        noise = draws.normal(stream, shape)
        for level, (rows, columns) in enumerate(self._levels(height, width, noise), start=1):
            small = draws.normal(f"{stream}, level {level}", (channels, rows.shape[1], columns.shape[1]))
            noise.add_(rows @ small @ columns.mT, alpha=self.discount**level)
        return noise / self._deviation(height, width, noise) if self.unit_variance else noise

    def _levels(self, height: int, width: int, like: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each level after the first, the matrices that enlarge its rows `[H, h]` and its columns `[W, w]`."""
        key = (height, width, like.device)
        if key not in self._tables:
            number = max(height, width).bit_length()
            levels = [[resize_matrix("bilinear", max(size >> level, 1), size).to(like) for size in (height, width)]
                      for level in range(1, number)]  # fmt: skip
            self._tables[key] = [(rows, columns) for rows, columns in levels]
        return self._tables[key]

    def _deviation(self, height: int, width: int, like: Tensor) -> Tensor:
        """The standard deviation of each pixel, `[H, W]`, over all levels."""
        variance = like.new_ones(height, width)
        for level, (rows, columns) in enumerate(self._levels(height, width, like), start=1):
            share = rows.square().sum(1)[:, None] * columns.square().sum(1)
            variance += self.discount ** (2 * level) * share
        return variance.sqrt_()
