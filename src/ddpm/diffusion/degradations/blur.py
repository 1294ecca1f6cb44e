"""Increasing blur: deblurring, and generation from a colour (Bansal et al. 2022, sections 4.1, 5.2; appendix A.1)."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.base import check
from ddpm.base.types import Time
from ddpm.diffusion.degradations.levels import HasLevels
from ddpm.diffusion.degradations.separable import Separable, along_one_side


@dataclass(frozen=True, kw_only=True, eq=False)
class Blur(HasLevels, Separable):
    """t successive convolutions with Gaussian kernels of `kernel` x `kernel` pixels.

    The kernel of step i = 0, 1, ... has the standard deviation sigma in pixels (growth=constant), sigma + rate * i
    (linear) or sigma * exp(rate * i) (exponential). padding: reflect, or circular, which keeps the mean. to_mean: the
    last step is the mean of each channel instead, so that images can be generated from a colour.
    """

    kernel: check.PositiveInt
    sigma: check.PositiveNumber
    growth: Annotated[str, check.words("constant", "linear", "exponential")]
    rate: check.Number
    padding: Annotated[str, check.words("reflect", "circular")]
    to_mean: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % 2 == 0:
            check.fail("process.kernel", self.kernel, "odd, so that it has a middle")
        if self.sigma_of(self.T - 1) <= 0:
            check.fail("process.rate", self.rate, f"large enough that sigma stays above 0 for {self.T} steps")

    def sigma_of(self, i: int) -> float:
        """Standard deviation in pixels of the i-th convolution, i in 0..T - 1."""
        match self.growth:
            case "constant":
                return self.sigma
            case "linear":
                return self.sigma + self.rate * i
            case _:
                return self.sigma * math.exp(self.rate * i)

    def matrices(self, size: int) -> Tensor:
        border = self.kernel // 2
        largest = size - 1 if self.padding == "reflect" else size
        if border > largest:
            fitting = 2 * largest + 1
            check.fail("process.kernel", self.kernel, f"{fitting} or less for a side of {size} pixels, {self.padding}")
        place = torch.arange(-border, border + 1, dtype=torch.float64)
        blurred = [torch.eye(size, dtype=torch.float64)]
        for i in range(self.T):
            weights = torch.softmax(-place.square() / (2 * self.sigma_of(i) ** 2), 0)
            blurred.append(
                along_one_side(size, partial(convolve_rows, weights=weights, padding=self.padding)) @ blurred[-1]
            )
        if self.to_mean:
            blurred[-1] = torch.full((size, size), 1 / size, dtype=torch.float64)
        return torch.stack(blurred)

    def apply(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        return self.to_levels(super().apply(x0, z, t), t)

    @property
    def fits_prior(self) -> bool:
        return self.to_mean

    def terminal_statistics(self, x_T: Tensor) -> Tensor:
        """The colour, `[B, C]`."""
        return x_T.mean((2, 3))

    def from_statistics(self, statistics: Tensor, shape: tuple[int, ...]) -> Tensor:
        return statistics[:, :, None, None].expand(-1, *shape).clone()


def convolve_rows(rows: Tensor, weights: Tensor, padding: str) -> Tensor:
    """Convolve each row of `[1, N, size]` with `weights`, of odd length."""
    border = len(weights) // 2
    windows = F.pad(rows, (border, border), mode=padding).unfold(-1, len(weights), 1)
    return windows @ weights
