"""A growing mask: inpainting (Bansal et al. 2022, section 4.2 and appendix A.2)."""

from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Time
from ddpm.diffusion.degradations.levels import HasLevels


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask(HasLevels):
    """Each step i < t multiplies the image by 1 - exp(-d^2 / (2 sigma_i^2)), where d is the distance to a centre.

    sigma_i = sigma_step * (i + initial) pixels. center: drawn for each sample (random) from the rows -shift..H - 1 and
    the columns -shift..W - 1, or the middle, row H // 2 - shift and column W // 2 - shift. shift is 1 in the authors'
    code, which cuts off the first row and column of its Gaussians. value: the pixel value of the mask, in [-1, 1]; 0 is
    grey, the result of the multiplication alone.
    """

    sigma_step: check.PositiveNumber
    initial: check.PositiveNumber
    center: Annotated[str, check.words("random", "middle")]
    shift: Annotated[int, check.integers(0, 1)]
    value: Annotated[float, check.numbers(-1, 1)]
    _tables: dict[tuple[int, torch.device, torch.dtype], Tensor] = field(default_factory=dict, init=False, repr=False)

    def draw(self, x0: Tensor, draws: Draws) -> Tensor:
        """int64 `[B, 2]`, the row and the column of the centre."""
        height, width = x0.shape[-2:]
        if self.center == "middle":
            middle = torch.tensor([height // 2, width // 2], device=x0.device)
            return (middle - self.shift).expand(len(x0), 2)
        places = (draws.integers("row", height + self.shift), draws.integers("column", width + self.shift))
        return torch.stack(places, 1) - self.shift

    def apply(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        left = self.left(z, t, x0)
        x_t = left * x0 if self.value == 0 else left * x0 + (1 - left) * self.value
        return self.to_levels(x_t, t)

    def left(self, z: Tensor, t: Time, like: Tensor) -> Tensor:
        """The remaining share of each pixel, `[B, 1, H, W]` in [0, 1]."""
        height, width = like.shape[-2:]
        down = (torch.arange(height, device=z.device) - z[:, :1]).square()
        across = (torch.arange(width, device=z.device) - z[:, 1:]).square()
        squared = down[:, :, None] + across[:, None, :]
        times = t.view(-1, 1, 1) if isinstance(t, Tensor) else t
        return self._table(height**2 + width**2, like)[times, squared].unsqueeze(1)

    def _table(self, largest: int, like: Tensor) -> Tensor:
        """The remaining share at each time and squared distance from the centre, `[T + 1, largest + 1]`."""
        key = (largest, like.device, like.dtype)
        if key not in self._tables:
            sigma = self.sigma_step * (self.initial + torch.arange(self.T, dtype=torch.float64)[:, None])
            squared = torch.arange(largest + 1, dtype=torch.float64)
            left = (-torch.expm1(-squared / (2 * sigma.square()))).cumprod(0)
            self._tables[key] = torch.cat([torch.ones_like(left[:1]), left]).to(like)
        return self._tables[key]
