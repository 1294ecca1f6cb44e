"""Number, mean and covariance of features: all that a Gaussian fitted to them knows."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """num: of the vectors. mean: float64 `[d]`. covariance: float64 `[d, d]`, divided by num - 1."""

    num: int
    mean: Tensor
    covariance: Tensor

    @classmethod
    def from_sums(cls, num: int, total: Tensor, outer: Tensor) -> "Moments":
        """total: sum of the vectors, float64 `[d]`. outer: sum of their outer products, float64 `[d, d]`."""
        mean = total / max(num, 1)
        covariance = (outer - num * torch.outer(mean, mean)) / max(num - 1, 1)
        return cls(num, mean, covariance)

    def to(self, device: torch.device) -> "Moments":
        return Moments(self.num, self.mean.to(device), self.covariance.to(device))
