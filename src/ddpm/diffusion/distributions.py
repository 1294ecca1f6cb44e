"""Distributions of forward processes, with independent pixels: Gaussian or Bernoulli.

The variational bound uses only `kl` and `log_likelihood`; ancestral sampling uses only `sample` and `mode`.
"""

import math
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from ddpm.base.rng import Draws
from ddpm.diffusion.coefficients import Coefficient, per_sample
from ddpm.diffusion.noises.base import WHITE, Noise, demand_white

HALF_BIN = 1 / 255
"""Half the distance between neighbouring 8-bit levels in [-1, 1]."""

FAR = 1e4
"""A bound in standard deviations, in place of infinity, whose gradient is NaN."""


class Distribution(Protocol):
    def mode(self) -> Tensor:
        """The most likely image `[B, C, H, W]`."""
        ...

    def sample(self, draws: Draws, stream: str) -> Tensor: ...

    def kl(self, other: Self) -> Tensor:
        """KL(self || other) of each pixel in nats, `[B, C, H, W]`."""
        ...

    def log_likelihood(self, x0: Tensor) -> Tensor:
        """Log-probability of each pixel of the clean image x0 `[B, C, H, W]`, in nats."""
        ...


class Gaussian(NamedTuple):
    """mean: `[B, C, H, W]`; variance: a float, `[B]`, or `[B, C, H, W]`; 0 is a point mass.

    If noise is not white, pixels are not independent: `sample` works, but `kl` and `log_likelihood` raise ValueError.
    """

    mean: Tensor
    variance: Coefficient
    noise: Noise = WHITE

    def mode(self) -> Tensor:
        return self.mean

    def sample(self, draws: Draws, stream: str) -> Tensor:
        noise = self.noise(draws, stream, tuple(self.mean.shape[1:])).to(self.mean.dtype)
        return self.mean + per_sample(self.variance**0.5, self.mean) * noise

    def kl(self, other: "Gaussian") -> Tensor:
        """Infinite where self is a point mass and other is not."""
        demand_white(self.noise)
        mine, theirs = self._variances(), other._variances()
        apart = ((self.mean - other.mean).square() + mine) / theirs
        return (apart - 1 + theirs.log() - mine.log()) / 2  # the log of the ratio would have a NaN gradient at 0

    def log_likelihood(self, x0: Tensor) -> Tensor:
        """Log-mass of the bin around an 8-bit level; the outermost bins reach to infinity (Ho et al. 2020, eq. 13).

        x0: in [-1, 1]. We use the exact error function without a floor, so the masses of the 256 bins sum to 1. Their
        code approximates the function by tanh and clamps the probability at 1e-12.
        """
        demand_white(self.noise)
        std = self._variances().sqrt()
        lower = torch.where(x0 < -0.999, -FAR, (x0 - HALF_BIN - self.mean) / std)
        upper = torch.where(x0 > 0.999, FAR, (x0 + HALF_BIN - self.mean) / std)
        mirror = torch.where(lower + upper > 0, -1, 1)  # to the left tail, where log_ndtr is accurate
        left, right = torch.minimum(mirror * lower, mirror * upper), torch.maximum(mirror * lower, mirror * upper)
        log_right = torch.special.log_ndtr(right)
        return log_right + torch.log(-torch.expm1(torch.special.log_ndtr(left) - log_right))

    def log_density(self, x0: Tensor) -> Tensor:
        """Logarithm of the density, in nats, one a number, of an x0 that has no levels, as latents."""
        demand_white(self.noise)
        variances = self._variances()
        return -((x0 - self.mean).square() / variances + variances.log() + math.log(2 * math.pi)) / 2

    def _variances(self) -> Tensor:
        return torch.as_tensor(per_sample(self.variance, self.mean), dtype=self.mean.dtype, device=self.mean.device)


class Bernoulli(NamedTuple):
    """Pixels of -1 and 1, where 1 has the probability (1 + mean) / 2. mean: `[B, C, H, W]` in [-1, 1]."""

    mean: Tensor

    def mode(self) -> Tensor:
        return torch.where(self.mean > 0, 1.0, -1.0).to(self.mean.dtype)

    def sample(self, draws: Draws, stream: str) -> Tensor:
        uniform = draws.uniform(stream, tuple(self.mean.shape[1:]))
        return torch.where(uniform < (1 + self.mean) / 2, 1.0, -1.0).to(self.mean.dtype)

    def kl(self, other: "Bernoulli") -> Tensor:
        total = torch.zeros_like(self.mean)
        for sign in (1, -1):
            mine, theirs = (1 + sign * self.mean) / 2, (1 + sign * other.mean) / 2
            total = total + torch.xlogy(mine, mine) - torch.xlogy(mine, theirs)
        return total

    def log_likelihood(self, x0: Tensor) -> Tensor:
        """x0: `[B, C, H, W]` of -1 and 1."""
        return torch.log((1 + x0 * self.mean) / 2)


def symmetric_root(covariance: Tensor) -> Tensor:
    """The symmetric R with R R = covariance, `[K, K]`, which may be singular."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T
