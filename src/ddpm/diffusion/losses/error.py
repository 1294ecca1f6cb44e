"""Errors of an output relative to its target: means over all dimensions except the first, `[B]`."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from ddpm.base import check


class ErrorFunction(Protocol):
    def __call__(self, output: Tensor, target: Tensor) -> Tensor: ...


def per_sample_mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)


def mse(output: Tensor, target: Tensor) -> Tensor:
    return per_sample_mean((output - target).square())


def mae(output: Tensor, target: Tensor) -> Tensor:
    return per_sample_mean((output - target).abs())


@dataclass(frozen=True)
class Huber(check.Checked):
    """Half the squared error up to delta, and linear beyond (Huber 1964)."""

    delta: check.PositiveNumber

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return per_sample_mean(F.huber_loss(output, target, reduction="none", delta=self.delta))
