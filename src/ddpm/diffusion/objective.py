"""What the network predicts: eps, x0, v or log-odds. Each objective converts its own output to x0."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ddpm.base.types import Time
from ddpm.diffusion.coefficients import weighted_sum
from ddpm.diffusion.schedules.base import NoiseSchedule


class Objective(Protocol):
    def to_x0(self, output: Tensor, x_t: Tensor, t: Time) -> Tensor:
        """The prediction of x0 `[B, C, H, W]` that follows from the network's output."""
        ...

    def target(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        """The regression target of the network's output, `[B, C, H, W]`."""
        ...

    def x0_error(self, snr: Tensor) -> Tensor:
        """The ratio of |x0 - x0_hat|^2 to |target - output|^2 at the signal-to-noise ratio `snr`."""
        ...


@dataclass(frozen=True)
class Eps:
    """The noise (Ho et al. 2020, eqs. 11 and 12)."""

    schedule: NoiseSchedule

    def __post_init__(self) -> None:
        if self.schedule.alpha_bar[-1] == 0:
            raise ValueError(
                "objective=eps cannot be used with a schedule without signal at T (schedule=jsd, zero terminal SNR), "
                "since eps says nothing about x0 there; use objective=v or objective=x0"
            )

    def to_x0(self, output: Tensor, x_t: Tensor, t: Time) -> Tensor:
        alpha = self.schedule.alpha(t)
        return weighted_sum(1 / alpha, x_t, -self.schedule.sigma(t) / alpha, output)

    def target(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        return z

    def x0_error(self, snr: Tensor) -> Tensor:
        return 1 / snr


@dataclass(frozen=True)
class X0:
    """The clean sample itself."""

    schedule: NoiseSchedule

    def to_x0(self, output: Tensor, x_t: Tensor, t: Time) -> Tensor:
        return output

    def target(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        return x0

    def x0_error(self, snr: Tensor) -> Tensor:
        return torch.ones_like(snr)


@dataclass(frozen=True)
class V:
    """alpha eps - sigma x0, the velocity on the circle of x0 and eps (Salimans and Ho 2022, appendix D)."""

    schedule: NoiseSchedule

    def __post_init__(self) -> None:
        self.schedule.alpha(0)  # ValueError for a schedule without noise levels

    def to_x0(self, output: Tensor, x_t: Tensor, t: Time) -> Tensor:
        return weighted_sum(self.schedule.alpha(t), x_t, -self.schedule.sigma(t), output)

    def target(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        return weighted_sum(self.schedule.alpha(t), z, -self.schedule.sigma(t), x0)

    def x0_error(self, snr: Tensor) -> Tensor:
        return 1 / (snr + 1)


CERTAIN = 1 - 2**-20
"""Bound of |x0| from log-odds, so that a confident error costs 14.6 nats instead of infinitely many, in float32 too."""


@dataclass(frozen=True)
class Logit:
    """The log-odds that a pixel is 1 and not -1, so that x0 is tanh(output / 2); for process=binomial."""

    schedule: NoiseSchedule

    def to_x0(self, output: Tensor, x_t: Tensor, t: Time) -> Tensor:
        return CERTAIN * torch.tanh(output / 2)

    def target(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        """Raises ValueError: the log-odds of x0 are infinite, so a loss must compare x0 with `to_x0` instead."""
        raise ValueError(
            "objective=logit cannot be used with loss=simple, since the log-odds of x0 are infinite; use "
            "loss=vlb, or objective=x0 for a regression of x0"
        )

    def x0_error(self, snr: Tensor) -> Tensor:
        """Raises ValueError, as `target` does."""
        return self.target(snr, snr, 1)
