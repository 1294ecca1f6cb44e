"""Degradations that treat rows and columns alike: one matrix for the height and one for the width at each time."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm.base.types import Time
from ddpm.diffusion.degradations.base import HasFittedPrior


@dataclass(frozen=True, kw_only=True, eq=False)
class Separable(HasFittedPrior):
    """D(x0, t) = A_t x0 B_t^T, whatever t is: two products of matrices, which are made once for a size."""

    _tables: dict[tuple[int, torch.device, torch.dtype], Tensor] = field(default_factory=dict, init=False, repr=False)

    @abstractmethod
    def matrices(self, size: int) -> Tensor:
        """float64 `[T + 1, size, size]`: A of each time for images of this height, or B for this width."""

    def apply(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        rows, columns = (self._table(size, x0)[t] for size in x0.shape[-2:])
        if isinstance(t, Tensor):
            rows, columns = rows.unsqueeze(1), columns.unsqueeze(1)
        return rows @ x0 @ columns.mT

    def _table(self, size: int, like: Tensor) -> Tensor:
        key = (size, like.device, like.dtype)
        if key not in self._tables:
            self._tables[key] = self.matrices(size).to(like)
        return self._tables[key]


def along_one_side(size: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The matrix of a linear map of one side: `change` takes `[1, size, size]`, of which it maps the last dimension."""
    return change(torch.eye(size, dtype=torch.float64)[None])[0].mT


def resize_matrix(mode: str, before: int, after: int) -> Tensor:
    """`[after, before]`, what torch's interpolation in this mode does to one side."""
    if mode == "area":
        return along_one_side(before, lambda eye: F.adaptive_avg_pool1d(eye, after))
    if mode == "nearest-exact":
        return along_one_side(before, lambda eye: F.interpolate(eye, size=after, mode=mode))
    return along_one_side(before, lambda eye: F.interpolate(eye[None], size=(before, after), mode=mode)[0])
