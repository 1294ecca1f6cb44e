"""Base classes of the degradations of Cold Diffusion (Bansal et al. 2022)."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws, Rng
from ddpm.base.types import Time
from ddpm.diffusion.distributions import symmetric_root
from ddpm.diffusion.schedules.base import Steps


@dataclass(frozen=True, kw_only=True)
class Degradation(ABC):
    """x_t = D(x0, z, t). If the degradation has a z, it is the same for the whole trajectory of a sample."""

    schedule: Steps

    def __post_init__(self) -> None:
        check.fields(self, "process.")
        if not isinstance(self.schedule, Steps):
            process = type(self).__name__.lower()
            raise ValueError(f"process={process} defines its own degradation at each time: choose schedule=steps")

    @property
    def T(self) -> int:
        return self.schedule.T

    def draw(self, x0: Tensor, draws: Draws) -> Tensor:
        """z: an empty `[B, 0]`, unless a degradation overrides this method."""
        return x0.new_zeros(len(x0), 0)

    @abstractmethod
    def apply(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        """D(x0, z, t); x0 itself at t = 0."""

    def recover_noise(self, x_t: Tensor, x0: Tensor, t: Time, z: Tensor) -> Tensor:
        """z itself, which is never inferred."""
        return z

    @property
    def has_prior(self) -> bool:
        return False

    def prior(self, shape: tuple[int, ...], draws: Draws) -> Tensor:
        raise ValueError(
            f"process={type(self).__name__.lower()} has no prior to sample from: x_T is still an image, or its "
            "statistics are not fitted; restore real images with task=restoration"
        )


@dataclass(frozen=True, kw_only=True)
class HasFittedPrior(Degradation):
    """A degradation with a prior: a few numbers, the terminal statistics, determine x_T.

    The prior of the statistics is a Gaussian that is fitted to those of the training images (section 5.2).

    fitted: its mean `[K]` and covariance `[K, K]`; None: no prior, or not fitted yet. symmetry_noise: standard
    deviation of noise added to x_T from the prior, so that not all pixels start equal; 0: "perfect symmetry".
    """

    fitted: Mapping[str, Any] | None
    symmetry_noise: check.NonNegativeNumber

    @property
    def fits_prior(self) -> bool:
        """Whether a prior can be fitted with these settings."""
        return True

    @abstractmethod
    def terminal_statistics(self, x_T: Tensor) -> Tensor:
        """The statistics `[B, K]` that determine fully degraded images `[B, C, H, W]`."""

    @abstractmethod
    def from_statistics(self, statistics: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The x_T `[B, *shape]` with these statistics."""

    @property
    def has_prior(self) -> bool:
        return self.fitted is not None

    def prior(self, shape: tuple[int, ...], draws: Draws) -> Tensor:
        """x_T from the fitted Gaussian, with symmetry noise, float32 `[B, *shape]`."""
        if self.fitted is None:
            return super().prior(shape, draws)
        mean = torch.tensor(self.fitted["mean"], dtype=torch.float64, device=draws.ids.device)
        covariance = torch.tensor(self.fitted["covariance"], dtype=torch.float64, device=mean.device)
        noise = draws.normal("summary", tuple(mean.shape)).double()
        drawn = mean + noise @ symmetric_root(covariance.view(len(mean), len(mean)))
        x_T = self.from_statistics(drawn.float(), shape)
        return x_T.add_(draws.normal("asymmetry", shape), alpha=self.symmetry_noise)


def fraction_of_T(t: Time, T: int, like: Tensor) -> float | Tensor:
    """t / T: a float for an int, or `[B, 1, 1, 1]` in the dtype of `like` for times `[B]`."""
    return (t.double() / T).to(like.dtype).view(-1, 1, 1, 1) if isinstance(t, Tensor) else t / T


LARGEST_STATISTICS = 64
"""The largest number of statistics whose covariance is stored in a configuration."""


def fit_statistics(process: HasFittedPrior, images: Iterable[Tensor]) -> dict[str, Any] | None:
    """`fitted` as lists, from batches x0 `[B, C, H, W]`; None for more than LARGEST_STATISTICS statistics."""
    statistics: list[Tensor] = []
    seen = 0
    for x0 in images:
        z = process.draw(x0, Rng(0, "fit").at(0, seen + torch.arange(len(x0))))
        seen += len(x0)
        statistics.append(process.terminal_statistics(process.apply(x0, z, process.T)).double())
    rows = torch.cat(statistics)
    if rows.shape[1] > LARGEST_STATISTICS:
        return None
    mean = rows.mean(0)
    covariance = (rows - mean).T @ (rows - mean) / len(rows)
    return {"mean": mean.tolist(), "covariance": covariance.tolist()}
