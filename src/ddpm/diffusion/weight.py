"""How much each time counts in the loss: a factor on the squared error of the network's own output.

Weights that a paper states for the error of x0 are carried over by `Objective.x0_error`, so that they mean the same
thing for eps, x0 and v. snr and x0_error: float64 `[B]`; so is the weight.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ddpm import check


class Weight(Protocol):
    def __call__(self, snr: Tensor, x0_error: Tensor) -> Tensor: ...


def uniform(snr: Tensor, x0_error: Tensor) -> Tensor:
    """1 for every time: L_simple of Ho et al. 2020, eq. 14."""
    return torch.ones_like(snr)


def signal_to_noise(snr: Tensor, x0_error: Tensor) -> Tensor:
    """SNR on the error of x0, that is 1 on the error of eps: the same loss whatever the network predicts."""
    return snr * x0_error


@dataclass(frozen=True)
class MinSNR:
    """min(SNR, gamma) on the error of x0 (Hang et al. 2023, section 3.4, gamma = 5)."""

    gamma: float

    def __post_init__(self) -> None:
        check.positive_number("gamma", self.gamma)

    def __call__(self, snr: Tensor, x0_error: Tensor) -> Tensor:
        return snr.clamp(max=self.gamma) * x0_error


@dataclass(frozen=True)
class P2:
    """1 / (k + SNR)^gamma on the error of eps, which plays down the nearly clean times (Choi et al. 2022, eq. 8)."""

    k: float
    gamma: float

    def __post_init__(self) -> None:
        check.positive_number("k", self.k)  # at k = 0 the weight has no bound where nothing is left of the signal
        check.number("gamma", self.gamma, low=0)

    def __call__(self, snr: Tensor, x0_error: Tensor) -> Tensor:
        return snr * x0_error * (self.k + snr) ** -self.gamma
