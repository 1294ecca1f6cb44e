"""Fewer and larger pixels: super-resolution (Bansal et al. 2022, section 4.3 and appendix A.3)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.base import check
from ddpm.diffusion.degradations.separable import Separable, resize_matrix

MODES = ("area", "bilinear", "bicubic")


@dataclass(frozen=True, kw_only=True, eq=False)
class Pixelate(Separable):
    """Every step halves height and width, down to one pixel; the image is shown at its own size, by nearest pixels.

    A side that is odd is halved downwards: 28, 14, 7, 3. mode: how several pixels become one: their mean (area), or
    torch's bilinear or bicubic interpolation, which look at the nearest two or four.
    """

    mode: str

    def __post_init__(self) -> None:
        super().__post_init__()
        check.one_of("process.mode", self.mode, MODES)

    def matrices(self, size: int) -> Tensor:
        maps = [torch.eye(size, dtype=torch.float64)]
        for t in range(1, self.T + 1):
            small = self.small(size, t)
            maps.append(resize_matrix("nearest-exact", small, size) @ resize_matrix(self.mode, size, small))
        return torch.stack(maps)

    def small(self, size: int, t: int) -> int:
        """The number of different pixels along a side at time t."""
        return max(size >> t, 1)

    def terminal_statistics(self, x_T: Tensor) -> Tensor:
        """`[B, C h w]`, the pixels of the smallest image."""
        height, width = (self.small(size, self.T) for size in x_T.shape[-2:])
        return F.interpolate(x_T, size=(height, width), mode="nearest-exact").flatten(1)

    def from_statistics(self, statistics: Tensor, shape: tuple[int, ...]) -> Tensor:
        channels, *sides = shape
        small = statistics.view(-1, channels, *(self.small(size, self.T) for size in sides))
        return F.interpolate(small, size=tuple(sides), mode="nearest-exact")
