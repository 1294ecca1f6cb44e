"""Points in the plane as features of themselves, for distances and modes in the plane."""

from collections.abc import Collection, Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor


class Points:
    """Coordinates in [-1, 1]. "points" is "pooled" by another name, which says that the features are coordinates."""

    dims: ClassVar[Mapping[str, int]] = {"pooled": 2, "points": 2}
    preprocessing = "uint8 / 127.5 - 1"
    name = "points"
    weights_hash = "none"

    def to(self, device: torch.device | str) -> Self:
        return self

    def __call__(self, pixels: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        height, width = pixels.shape[2:]
        if (height, width) != (1, 2):
            raise ValueError(
                f"features=points needs images of 1 x 2 pixels, as data=grid25 has them, got {height} x {width}; "
                "choose features=inception"
            )
        return dict.fromkeys(layers, pixels[:, 0, 0].float() / 127.5 - 1)
