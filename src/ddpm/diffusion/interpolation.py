"""Interpolation of images: linear in x_t (Ho et al. 2020, section 4.4), or spherical in x_T (Song et al. 2021)."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm.base.rng import Draws, Rng


def linear(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """(1 - w) x + w y for each of the weights `[N]`. x, y: `[C, H, W]`; returns `[N, C, H, W]`."""
    w = weights.to(x).view(-1, *[1] * x.ndim)
    return (1 - w) * x + w * y


def spherical(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """(sin((1 - w) a) x + sin(w a) y) / sin(a), where a is the angle between x and y (Song et al. 2021, appendix D.5).

    x, y: `[N, ...]`, a pair for each of the weights `[N]`. Noise keeps its variance, while linear interpolation halves
    it at w = 1/2. Parallel x and y are interpolated linearly; so are opposite ones, which have no unique great circle.
    """
    a, b, w = x.double().flatten(1), y.double().flatten(1), weights.double()[:, None]
    angle = torch.acos(((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).clamp(-1, 1))[:, None]
    curved = (((1 - w) * angle).sin() * a + (w * angle).sin() * b) / angle.sin()
    return torch.where(angle.sin() < 1e-6, (1 - w) * a + w * b, curved).view(x.shape).to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class InterpolatedRng(Rng):
    """Interpolates the normal numbers of sample i between those of the samples `first[i]` and `second[i]`.

    shares: weights of the second sample, `[N]` in [0, 1]. streams: names of the streams to interpolate, such as "prior"
    (x_T) or "latent"; None: all. All other random numbers are those of the first sample.
    """

    first: Tensor
    second: Tensor
    shares: Tensor
    streams: Collection[str] | None

    def at(self, step: int, ids: Tensor, positions: Tensor | None = None) -> Draws:
        others, shares = self.second[ids], self.shares[ids]
        return InterpolatedDraws(
            self, step, self.first[ids], positions, others=others, shares=shares, streams=self.streams
        )


@dataclass(frozen=True, kw_only=True)
class InterpolatedDraws(Draws):
    others: Tensor
    shares: Tensor
    streams: Collection[str] | None

    def normal(self, stream: str, shape: tuple[int, ...]) -> Tensor:
        one = super().normal(stream, shape)
        if self.streams is not None and stream not in self.streams:
            return one
        other = Draws(self.rng, self.step, self.others).normal(stream, shape)
        return spherical(one, other, self.shares)
