"""Numbers that multiply images: a float for a batch that marches in step, or one for each sample or pixel."""

from torch import Tensor

Coefficient = float | Tensor
"""A float for an int time, float64 `[B]` for times `[B]`, `[B, C, H, W]` where pixels differ."""


def weighted_sum(a: Coefficient, x: Tensor, b: Coefficient, y: Tensor) -> Tensor:
    """a x + b y for images `[B, C, H, W]`; coefficients `[B]` are cast to the images' dtype once they are final."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return per_sample(a, x) * x + per_sample(b, y) * y
    return (x * a).add_(y, alpha=b)


def per_sample(c: Coefficient, x: Tensor) -> Coefficient:
    """A coefficient `[B]`, or one a pixel `[B, C, H, W]`, shaped to multiply images x `[B, C, H, W]`."""
    return c.to(x.dtype).view(*c.shape, *[1] * (x.ndim - c.ndim)) if isinstance(c, Tensor) else c
