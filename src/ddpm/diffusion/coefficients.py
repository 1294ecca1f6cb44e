"""Coefficients of images: a float if all samples of a batch have the same time, else one for each sample or pixel."""

from torch import Tensor

Coefficient = float | Tensor
"""A float for an int time, float64 `[B]` for times `[B]`, or `[B, C, H, W]` if pixels differ."""


def weighted_sum(a: Coefficient, x: Tensor, b: Coefficient, y: Tensor) -> Tensor:
    """a x + b y for images x, y `[B, C, H, W]`. Tensor coefficients are cast to the dtype of the images."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return per_sample(a, x) * x + per_sample(b, y) * y
    return (x * a).add_(y, alpha=b)


def per_sample(c: Coefficient, x: Tensor) -> Coefficient:
    """A coefficient `[B]` or `[B, C, H, W]`, in the dtype of the images x and reshaped to broadcast with them."""
    return c.to(x.dtype).view(*c.shape, *[1] * (x.ndim - c.ndim)) if isinstance(c, Tensor) else c
