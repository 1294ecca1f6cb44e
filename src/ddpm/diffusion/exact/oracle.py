"""Data distributions with a closed form of the ideal denoiser E[x0 | x_t] at any noise level.

Their methods take alpha and sigma instead of a time and a schedule, and compute in the dtype of x_t.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Cond, Prediction
from ddpm.diffusion.schedules.base import NoiseSchedule


class Oracle(Protocol):
    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one sample: `(1, 1, d)`, an image of one row."""
        ...

    def x0(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        """E[x0 | x_t], `[B, *shape]`, for sigma > 0."""
        ...

    def draw(self, draws: Draws) -> Tensor:
        """Samples of the data, float64 `[B, *shape]`."""
        ...


@dataclass(frozen=True, eq=False)
class GaussianOracle:
    """Data N(mean, covariance). mean: d numbers; covariance: d x d, symmetric and positive definite."""

    mean: Sequence[float]
    covariance: Sequence[Sequence[float]]

    def __post_init__(self) -> None:
        d = len(self.mean)
        square = len(self.covariance) == d and all(len(row) == d for row in self.covariance)
        matrix = torch.tensor(self.covariance, dtype=torch.float64) if square else torch.zeros(1, 1)
        if not square or not torch.equal(matrix, matrix.T) or torch.linalg.eigvalsh(matrix)[0] <= 0:
            check.fail("covariance", self.covariance, f"{d} x {d}, symmetric, with eigenvalues above 0")

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, 1, len(self.mean)

    @cached_property
    def _axes(self) -> tuple[Tensor, Tensor, Tensor]:
        """The mean, the variances along the principal axes, and the axes as columns."""
        variances, axes = torch.linalg.eigh(torch.tensor(self.covariance, dtype=torch.float64))
        return torch.tensor(self.mean, dtype=torch.float64), variances, axes

    def x0(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        mean, variances, axes = (part.to(x_t) for part in self._axes)
        gain = alpha * variances / (alpha**2 * variances + sigma**2)
        return mean + ((x_t - alpha * mean) @ axes * gain) @ axes.T

    def draw(self, draws: Draws) -> Tensor:
        mean, variances, axes = (part.to(draws.ids.device) for part in self._axes)
        return mean + draws.normal("data", self.shape).double() * variances.sqrt() @ axes.T

    def flow(self, x_t: Tensor, t: int, s: int, schedule: NoiseSchedule) -> Tensor:
        """x_s of the probability-flow ODE from x_t: the scaling along the principal axes from q(x_t) to q(x_s)."""
        mean, variances, axes = (part.to(x_t) for part in self._axes)
        stds = [(schedule.alpha(u) ** 2 * variances + schedule.sigma(u) ** 2).sqrt() for u in (t, s)]
        along = (x_t - schedule.alpha(t) * mean) @ axes
        return schedule.alpha(s) * mean + along * (stds[1] / stds[0]) @ axes.T


@dataclass(frozen=True, eq=False)
class MixtureOracle:
    """The mixture of N(center, std^2) with equal weights over the centers `[K, d]`; std=0 is a finite data set."""

    centers: Sequence[Sequence[float]]
    std: check.NonNegativeNumber

    def __post_init__(self) -> None:
        check.fields(self)
        if not len(self.centers) or len({len(center) for center in self.centers}) != 1:
            check.fail("centers", list(self.centers)[:3], "at least one, all of the same length")

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, 1, len(self.centers[0])

    @cached_property
    def _centers(self) -> Tensor:
        return torch.as_tensor(self.centers, dtype=torch.float64)

    def x0(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        centers, variance = self._centers.to(x_t), alpha**2 * self.std**2 + sigma**2
        squares = (x_t.flatten(1)[:, None] - alpha * centers).square().sum(2)
        center = ((-squares / (2 * variance)).softmax(1) @ centers).view_as(x_t)
        return center + alpha * self.std**2 / variance * (x_t - alpha * center)

    def draw(self, draws: Draws) -> Tensor:
        chosen = self._centers.to(draws.ids.device)[draws.integers("part", len(self._centers))]
        return chosen.view(-1, *self.shape) + self.std * draws.normal("data", self.shape).double()


def ring(num: int, radius: float, std: float) -> MixtureOracle:
    """A mixture of `num` components on a circle."""
    check.positive_int("num", num)
    check.positive_number("radius", radius)
    angles = [2 * math.pi * k / num for k in range(num)]
    return MixtureOracle([[radius * math.cos(a), radius * math.sin(a)] for a in angles], std)


@dataclass(frozen=True)
class OracleDenoiser:
    """The ideal denoiser for a schedule: the limit of a network with unlimited data, training and capacity."""

    oracle: Oracle
    schedule: NoiseSchedule

    def __call__(self, x_t: Tensor, t: int | Tensor, cond: Cond) -> Prediction:
        """t: one int for the batch."""
        assert isinstance(t, int), "an oracle needs one int time for the batch"
        return Prediction(self.oracle.x0(x_t, self.schedule.alpha(t), self.schedule.sigma(t)))
