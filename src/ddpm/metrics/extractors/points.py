"""Coordinates of points in the plane as features, for distances and modes in the plane."""

from collections.abc import Collection, Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from ddpm.base import check


class Points:
    """Coordinates in [-1, 1]. "points" is equal to "pooled"; its name marks features that are coordinates."""

    dims: ClassVar[Mapping[str, int]] = {"pooled": 2, "points": 2}
    preprocessing = "uint8 / 127.5 - 1"
    name = "points"
    weights_hash = "none"

    def to(self, device: torch.device | str) -> Self:
        return self

    def __call__(self, pixels: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        if pixels.shape[2:] != (1, 2):
            check.fail("data.size", list(pixels.shape[2:]), "[1, 2] for features=points; choose features=inception")
        return dict.fromkeys(layers, pixels[:, 0, 0].float() / 127.5 - 1)
