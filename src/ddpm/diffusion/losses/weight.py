"""Loss weights: functions of the time that multiply the squared error of the network's own output.

Weights that a paper defines for the error of x0 are converted by `Objective.x0_error`, so that they have the same
effect for eps, x0 and v. Times are int64 `[B]`, weights float64 `[B]`.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.diffusion.objective import Objective
from ddpm.diffusion.schedules.base import Schedule


class Weight(Protocol):
    def __call__(self, t: Tensor, schedule: Schedule, objective: Objective) -> Tensor: ...


def uniform(t: Tensor, schedule: Schedule, objective: Objective) -> Tensor:
    """1 for every time: L_simple of Ho et al. 2020, eq. 14."""
    return torch.ones(t.shape, dtype=torch.float64, device=t.device)


def signal_to_noise(t: Tensor, schedule: Schedule, objective: Objective) -> Tensor:
    """SNR on the error of x0, which is 1 on the error of eps: the same loss for every objective."""
    snr = schedule.snr(t)
    return snr * objective.x0_error(snr)


@dataclass(frozen=True)
class MinSNR(check.Checked):
    """min(SNR + offset, gamma) on the error of x0 (Hang et al. 2023, section 3.4: gamma = 5, offset = 0).

    offset = 1 bounds the weight that a uniform weight of v has (Salimans and Ho 2022, section 4), so that images of
    which only noise is left count, too.
    """

    gamma: check.PositiveNumber
    offset: check.NonNegativeNumber = 0.0

    def __call__(self, t: Tensor, schedule: Schedule, objective: Objective) -> Tensor:
        snr = schedule.snr(t)
        return (snr + self.offset).clamp(max=self.gamma) * objective.x0_error(snr)


@dataclass(frozen=True)
class P2(check.Checked):
    """1 / (k + SNR)^gamma on the error of eps, which reduces the weight of low noise (Choi et al. 2022, eq. 8)."""

    k: check.PositiveNumber  # at k = 0 the weight is unbounded where no signal is left
    gamma: check.NonNegativeNumber

    def __call__(self, t: Tensor, schedule: Schedule, objective: Objective) -> Tensor:
        snr = schedule.snr(t)
        return snr * objective.x0_error(snr) * (self.k + snr) ** -self.gamma
