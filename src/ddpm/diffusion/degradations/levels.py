"""Rounding of degraded images to the levels of 8 bits (Bansal et al. 2022, "discrete" in their code)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Time
from ddpm.diffusion.degradations.base import Degradation


@dataclass(frozen=True, kw_only=True)
class HasLevels(Degradation):
    """A degradation whose images can be rounded, which removes invisible details.

    levels: number of grey levels in [-1, 1]; None: no rounding. rounding: to the nearest level, or down, which makes an
    image half a level darker on average.
    """

    levels: Annotated[int, check.integers(2)] | None
    rounding: Annotated[str, check.words("nearest", "down")]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels is None and self.rounding != "nearest":
            check.fail(
                "process.rounding", self.rounding, "nearest if process.levels is null, because nothing is rounded"
            )

    def to_levels(self, x_t: Tensor, t: Time) -> Tensor:
        """x_t in [-1, 1], rounded where t > 0."""
        if self.levels is None or (isinstance(t, int) and t == 0):
            return x_t
        steps = (self.levels - 1) / 2
        level = (x_t + 1).mul_(steps)
        level = level.round_() if self.rounding == "nearest" else level.trunc_()
        rounded = level.div_(steps).sub_(1)
        return torch.where((t > 0).view(-1, 1, 1, 1), rounded, x_t) if isinstance(t, Tensor) else rounded
