"""What travels between the rooms: a batch of images, the conditions of a network, a prediction, the terms of a loss."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from torch import Tensor

Time = int | Tensor
"""A time in 0..T, 0 = clean: one int for a batch that marches in step (sampling), or int64 `[B]` (training)."""

Cond = Mapping[str, Tensor]
"""The conditions of a network beside `x_t` and the time: keyword arguments of its forward, each `[B, ...]`."""


class Batch(TypedDict):
    """What the data module yields."""

    image: Tensor  # float32 [B, C, H, W] in [-1, 1]
    label: Tensor  # int64 [B], -1 where there is none
    index: Tensor  # int64 [B], the image's number in the data set
    position: Tensor  # int64 [B], its place in this epoch's order


@dataclass(frozen=True)
class Prediction:
    """What a denoiser believes about the clean sample.

    x0: `[B, C, H, W]`, the estimate of E[x0 | x_t]. extra: the output channels that the network has beyond the C of
    its objective (a learned variance, for example), `[B, C', H, W]` or None. guidance_gradient: the gradient
    of log p(y | x) at a point `[B, C, H, W]`, if a classifier guides towards y and the sampler's step applies it: the
    reverse step adds variance * guidance_gradient(mean) to its mean.
    """

    x0: Tensor
    extra: Tensor | None = None
    guidance_gradient: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class LossTerms:
    """A loss, one value a sample and never averaged: weighting, logging by time and loss-aware times need it so.

    total: `[B]`, of each sample at its time. t: int64 `[B]`, the times that were drawn. parts: named `[B]` for the log.
    importance: `[B]`, 1 / (T p(t)) where times are drawn with other probabilities than 1 / T; None: they are not.
    """

    total: Tensor
    t: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    importance: Tensor | None = None

    def weighted(self, values: Tensor) -> Tensor:
        """`values` `[B]` so that their mean is that over uniform times."""
        return values if self.importance is None else values * self.importance.to(values.dtype)
