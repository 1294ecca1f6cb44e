"""Decreasing resolution: super-resolution (Bansal et al. 2022, section 4.3 and appendix A.3)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.base import check
from ddpm.diffusion.degradations.separable import Separable, resize_matrix


@dataclass(frozen=True, kw_only=True, eq=False)
class Pixelate(Separable):
    """Each step halves height and width, down to one pixel; x_t is enlarged to the original size by nearest pixels.

    Half of an odd side is rounded down: 28, 14, 7, 3. mode: how the image is reduced: by the mean of pixels (area), or
    by torch's bilinear or bicubic interpolation, which use the nearest two or four along each side. cumulative: reduce
    the enlarged x_{t-1} instead of x0, as in the authors' code; with mode=area this is the same if sides halve evenly.
    """

    mode: Annotated[str, check.words("area", "bilinear", "bicubic")]
    cumulative: bool

    def matrices(self, size: int) -> Tensor:
        maps = [torch.eye(size, dtype=torch.float64)]
        for t in range(1, self.T + 1):
            small = self.small(size, t)
            step = resize_matrix("nearest-exact", small, size) @ resize_matrix(self.mode, size, small)
            maps.append(step @ maps[-1] if self.cumulative else step)
        return torch.stack(maps)

    def small(self, size: int, t: int) -> int:
        """The length at time t of a side of `size` pixels, before it is enlarged."""
        return max(size >> t, 1)

    def terminal_statistics(self, x_T: Tensor) -> Tensor:
        """The pixels of the smallest image, `[B, C h w]`."""
        height, width = (self.small(size, self.T) for size in x_T.shape[-2:])
        return F.interpolate(x_T, size=(height, width), mode="nearest-exact").flatten(1)

    def from_statistics(self, statistics: Tensor, shape: tuple[int, ...]) -> Tensor:
        channels, *sides = shape
        small = statistics.view(-1, channels, *(self.small(size, self.T) for size in sides))
        return F.interpolate(small, size=tuple(sides), mode="nearest-exact")
