"""The exact distribution of a sampler's output for an affine denoiser, such as the ideal one of Gaussian data.

Each step is affine in x_t and in the noise, and so is the whole trajectory. Its responses to single noise numbers give
mean and covariance without statistical error, for stochastic samplers too.
"""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.distributions import symmetric_root
from ddpm.diffusion.samplers.base import Sampler


class Normal(NamedTuple):
    """mean: float64 `[d]`; covariance: float64 `[d, d]`."""

    mean: Tensor
    covariance: Tensor


@dataclass
class Impulses:
    """Replaces an Rng. All numbers of a sample are 0, except one that is 1: for sample k + 1 the k-th."""

    num_seen: int = 0
    ids: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int64))

    def at(self, step: int, ids: Tensor, positions: Any = None) -> "Impulses":
        self.ids = ids
        return self

    def normal(self, stream: str, shape: tuple[int, ...]) -> Tensor:
        num = math.prod(shape)
        numbers = 1 + self.num_seen + torch.arange(num)
        self.num_seen += num
        return (self.ids[:, None] == numbers).to(torch.float64).view(-1, *shape)


def output_distribution(sampler: Sampler, denoiser: Denoiser, shape: tuple[int, int, int]) -> Normal:
    """The distribution of the flattened samples `[*shape]` at time 0, from the prior."""
    counting = Impulses()
    sampler.sample(denoiser, shape, counting, torch.zeros(1, dtype=torch.int64))  # type: ignore[arg-type]
    ids = torch.arange(1 + counting.num_seen)
    responses = sampler.sample(denoiser, shape, Impulses(), ids).flatten(1)  # type: ignore[arg-type]
    from_zero, moved = responses[0], responses[1:] - responses[0]
    return Normal(from_zero, moved.T @ moved)


def wasserstein(one: Normal, other: Normal) -> float:
    """The 2-Wasserstein distance of two Gaussians (Dowson and Landau 1982)."""
    root = symmetric_root(one.covariance)
    cross = symmetric_root(root @ other.covariance @ root)
    squared = (one.mean - other.mean).square().sum() + (one.covariance + other.covariance - 2 * cross).trace()
    return math.sqrt(max(float(squared), 0.0))
