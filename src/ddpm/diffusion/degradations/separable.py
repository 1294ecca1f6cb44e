"""Separable linear degradations: one matrix for the height and one for the width at each time."""

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
    """D(x0, t) = A_t x0 B_t^T. The matrices are computed once for each image size."""

    _tables: dict[tuple[int, torch.device, torch.dtype], Tensor] = field(default_factory=dict, init=False, repr=False)

    @abstractmethod
    def matrices(self, size: int) -> Tensor:
        """float64 `[T + 1, size, size]`: A_t of all times for images of height `size`, and B_t for width `size`."""

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
    """The matrix of a linear map of one side. change: maps the last dimension of `[1, size, size]`."""
    return change(torch.eye(size, dtype=torch.float64)[None])[0].mT


def resize_matrix(mode: str, before: int, after: int) -> Tensor:
    """The matrix `[after, before]` of torch's interpolation of one side in this mode."""
    if mode == "area":
        return along_one_side(before, lambda eye: F.adaptive_avg_pool1d(eye, after))
    if mode == "nearest-exact":
        return along_one_side(before, lambda eye: F.interpolate(eye, size=after, mode=mode))
    return along_one_side(before, lambda eye: F.interpolate(eye[None], size=(before, after), mode=mode)[0])
