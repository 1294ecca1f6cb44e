"""What a score is: it takes features with the numbers of their images and gives named values."""

from typing import Protocol, Self

import torch
from torch import Tensor


class Score(Protocol):
    """One figure, or a figure and its spread, from one layer of features.

    Sharded evaluation calls `update` on each rank with that rank's share and `compute` on all of them; `compute`
    gives every rank the same values, those of one process that has seen all images.
    """

    layer: str
    needs_real: bool
    min_images: int

    def to(self, device: torch.device | str) -> Self: ...

    def update(self, features: Tensor, ids: Tensor, real: bool) -> None:
        """features: float32 `[B, d]`; ids: int64 `[B]`, each image's own number among the real or the generated."""
        ...

    def compute(self) -> dict[str, float]:
        """Values by short name, e.g. `{"fid": 3.17}`; the evaluator adds extractor and number of images."""
        ...

    def reset_fake(self) -> None:
        """Forget the generated images and keep the real ones."""
        ...

    def caveat(self, num_real: int, num_generated: int) -> str | None:
        """What a reader of the value must know about these numbers of images, if anything."""
        ...
