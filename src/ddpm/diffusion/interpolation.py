"""Between two images: straight in x_t (Ho et al. 2020, section 4.4), along a great circle in x_T (Song et al. 2021)."""

import torch
from torch import Tensor


def linear(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """(1 - w) x + w y for each of the weights `[N]`. x, y: `[C, H, W]`; returns `[N, C, H, W]`."""
    w = weights.to(x).view(-1, *[1] * x.ndim)
    return (1 - w) * x + w * y


def spherical(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """sin((1 - w) a) / sin(a) x + sin(w a) / sin(a) y, a the angle between x and y (Song et al. 2021, appendix D.5).

    Where a straight line would pass through noise of half the variance, this keeps it. Shapes as in `linear`, which it
    is where x and y have one direction; opposite directions (a = pi) have no one great circle.
    """
    w = weights.to(torch.float64).view(-1, *[1] * x.ndim)
    a, b = x.double(), y.double()
    angle = torch.acos(((a * b).sum() / (a.norm() * b.norm())).clamp(-1, 1))
    if angle.sin() < 1e-6:
        return linear(x, y, weights)
    return (((1 - w) * angle).sin() * a + (w * angle).sin() * b).div(angle.sin()).to(x.dtype)
