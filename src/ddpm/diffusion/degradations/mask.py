"""A growing mask: inpainting (Bansal et al. 2022, section 4.2 and appendix A.2)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Time
from ddpm.diffusion.degradations.base import Degradation

CENTERS = ("random", "middle")


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask(Degradation):
    """Each step i < t multiplies the image by 1 - exp(-d^2 / (2 sigma_i^2)), where d is the distance to a centre.

    sigma_i = sigma_step * (i + 1) pixels. center: a pixel that is drawn for each sample (random), or the middle. value:
    the pixel value of the mask, in [-1, 1]; 0 is grey, the result of the multiplication alone.
    """

    sigma_step: float
    center: str
    value: float
    _tables: dict[tuple[int, torch.device, torch.dtype], Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check.positive_number("process.sigma_step", self.sigma_step)
        check.one_of("process.center", self.center, CENTERS)
        check.number("process.value", self.value, low=-1, high=1)

    def draw(self, x0: Tensor, draws: Draws) -> Tensor:
        """int64 `[B, 2]`, the row and the column of the centre."""
        height, width = x0.shape[-2:]
        if self.center == "middle":
            return torch.tensor([height // 2, width // 2], device=x0.device).expand(len(x0), 2)
        return torch.stack([draws.integers("row", height), draws.integers("column", width)], 1)

    def apply(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        left = self.left(z, t, x0)
        return left * x0 if self.value == 0 else left * x0 + (1 - left) * self.value

    def left(self, z: Tensor, t: Time, like: Tensor) -> Tensor:
        """The remaining share of each pixel, `[B, 1, H, W]` in [0, 1]."""
        height, width = like.shape[-2:]
        down = (torch.arange(height, device=z.device) - z[:, :1]).square()
        across = (torch.arange(width, device=z.device) - z[:, 1:]).square()
        squared = down[:, :, None] + across[:, None, :]
        times = t.view(-1, 1, 1) if isinstance(t, Tensor) else t
        return self._table((height - 1) ** 2 + (width - 1) ** 2, like)[times, squared].unsqueeze(1)

    def _table(self, largest: int, like: Tensor) -> Tensor:
        """The remaining share at each time and squared distance from the centre, `[T + 1, largest + 1]`."""
        key = (largest, like.device, like.dtype)
        if key not in self._tables:
            sigma = self.sigma_step * torch.arange(1, self.T + 1, dtype=torch.float64)[:, None]
            squared = torch.arange(largest + 1, dtype=torch.float64)
            left = (-torch.expm1(-squared / (2 * sigma.square()))).cumprod(0)
            self._tables[key] = torch.cat([torch.ones_like(left[:1]), left]).to(like)
        return self._tables[key]
