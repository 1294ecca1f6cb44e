"""Types shared by all packages: a batch of images, conditions of a network, a prediction, the terms of a loss."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NotRequired, TypedDict

from torch import Tensor, nn

Time = int | Tensor
"""A time in 0..T, where 0 is clean: one int for the whole batch (sampling), or int64 `[B]` (training)."""

Cond = Mapping[str, Tensor]
"""Conditions: keyword arguments of the network in addition to `x_t` and the time, each `[B, ...]`."""

SplitName = Literal["train", "val", "test"]


class Batch(TypedDict):
    """A batch of the data module."""

    image: NotRequired[Tensor]  # float32 [B, C, H, W] in [-1, 1]
    latent: NotRequired[Tensor]  # in place of the image: float32 [B, M, h, w], moments of a first stage
    caption: NotRequired[Tensor]  # int64 [B, N], with a trained text encoder
    tokens: NotRequired[Tensor]  # float32 [B, N, C], with a frozen text encoder
    label_map: NotRequired[Tensor]  # uint8 [B, H, W], the label of each pixel
    label: Tensor  # int64 [B], -1 where there is none
    index: Tensor  # int64 [B], the image's number in the data set
    position: Tensor  # int64 [B], its position in the order of this epoch


@dataclass(frozen=True)
class Prediction:
    """The prediction of a denoiser.

    x0: `[B, C, H, W]`, the estimate of E[x0 | x_t]. extra: `[B, C', H, W]` or None, the output channels of the network
    beyond the C of its objective (a learned variance, for example). guidance_gradient: None, or a function that returns
    the gradient of log p(y | x) at a point `[B, C, H, W]`. The reverse step then adds
    variance * guidance_gradient(mean) to its mean (classifier guidance). unclipped: x0 before it was clipped, or None.
    """

    x0: Tensor
    extra: Tensor | None = None
    guidance_gradient: Callable[[Tensor], Tensor] | None = None
    unclipped: Tensor | None = None


@dataclass(frozen=True)
class BalancedTerm:
    """A term of a loss whose weight is found anew in each step, from the gradients of the whole step (Esser et al.
    2021, eq. 7).

    values: `[B]`, or None in a step in which the term is not due. at: the parameter at which gradients are compared.
    """

    values: Tensor | None
    at: nn.Parameter
    factor: float

    def weight(self, gradient: Tensor, own: Tensor, scale: float = 1.0) -> Tensor:
        """factor * |gradient| / (|own| + 1e-4), with a quotient of at most 1e4.

        gradient, own: of the other terms and of this one, with respect to `at`, both of losses times scale.
        """
        return self.factor * (gradient.norm() / (own.norm() + 1e-4 * scale)).clamp(max=1e4)


@dataclass(frozen=True)
class LossTerms:
    """A loss with one value per sample, not averaged, as weighting, logging by time and loss-aware times need it.

    total: `[B]`, the loss of each sample at its time. t: int64 `[B]`, the times. parts: named terms `[B]`, for logging;
    NaN in all of one says that it was not computed in this step.
    importance: `[B]`, 1 / (T p(t)) if times are not drawn uniformly, else None.
    balanced: a term that is not in total, for losses of several networks.
    """

    total: Tensor
    t: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    importance: Tensor | None = None
    balanced: BalancedTerm | None = None

    @property
    def sum(self) -> Tensor:
        """total with the balanced term at weight 1, `[B]`, to look for what is not finite."""
        if self.balanced is None or self.balanced.values is None:
            return self.total
        return self.total + self.balanced.values

    def weighted(self, values: Tensor) -> Tensor:
        """`values` `[B]` times `importance`, so that their mean estimates the mean over uniform times."""
        return values if self.importance is None else values * self.importance.to(values.dtype)
