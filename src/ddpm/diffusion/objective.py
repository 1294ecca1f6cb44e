"""What the network predicts: eps, x0, v, or log-odds. Each goes to x0, so none needs to know the others."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ddpm.base.types import Time
from ddpm.diffusion.coefficients import weighted_sum
from ddpm.diffusion.schedules.base import NoiseSchedule


class Objective(Protocol):
    def to_x0(self, output: Tensor, x_t: Tensor, t: Time) -> Tensor:
        """The clean sample `[B, C, H, W]` that an output of the network stands for."""
        ...

    def target(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        """What the network should have said, `[B, C, H, W]`."""
        ...

    def x0_error(self, snr: Tensor) -> Tensor:
        """|x0 - x0_hat|^2 for each unit of |target - output|^2, where the signal-to-noise ratio is snr."""
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
        self.schedule.alpha(0)  # a schedule without noise says now that it has none

    def to_x0(self, output: Tensor, x_t: Tensor, t: Time) -> Tensor:
        return weighted_sum(self.schedule.alpha(t), x_t, -self.schedule.sigma(t), output)

    def target(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        return weighted_sum(self.schedule.alpha(t), z, -self.schedule.sigma(t), x0)

    def x0_error(self, snr: Tensor) -> Tensor:
        return 1 / (snr + 1)


CERTAIN = 1 - 2**-20
"""The largest |x0| that log-odds stand for: a sure mistake costs 14.6 nats, not infinitely many, also in float32."""


@dataclass(frozen=True)
class Logit:
    """The log-odds of a pixel being 1 and not -1, so that tanh(output / 2) is its mean; for process=binomial."""

    schedule: NoiseSchedule

    def to_x0(self, output: Tensor, x_t: Tensor, t: Time) -> Tensor:
        return CERTAIN * torch.tanh(output / 2)

    def target(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        """ValueError: only infinite log-odds would reach x0, so a loss compares x0 with `to_x0`."""
        raise ValueError(
            "objective=logit cannot be used with loss=simple, since no distance between log-odds and their target "
            "measures the error of x0; use loss=vlb, or objective=x0 for a regression of x0"
        )

    def x0_error(self, snr: Tensor) -> Tensor:
        """ValueError, as of `target`."""
        return self.target(snr, snr, 1)
