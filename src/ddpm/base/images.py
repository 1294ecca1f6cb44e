"""Conversion from [-1, 1] to 8-bit pixels, the only place where images become uint8."""

import torch
from torch import Tensor


def to_uint8(x: Tensor) -> Tensor:
    """Clamp to [-1, 1], scale to 0..255 and round; x = level / 127.5 - 1 is mapped to level exactly.

    x: floating point, any shape; values outside [-1, 1] (samples overshoot) are clamped. Raises ValueError for NaN,
    infinity, and images that seem to be in 0..255 (no value below 0 and the largest above 2). Truncation instead of
    rounding, as in several published sample scripts, would darken every image by half a level.
    """
    if not x.is_floating_point():
        raise ValueError(f"images must be floating point in [-1, 1], got {x.dtype}; 8-bit pixels are level / 127.5 - 1")
    if x.numel() == 0:
        return x.to(torch.uint8)
    low, high = (bound.item() for bound in torch.aminmax(x.detach()))  # NaN and infinity appear in the bounds
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise ValueError(f"images must be finite, got values from {low} to {high}: the sampler or the network diverged")
    if low >= 0 and high > 2:
        raise ValueError(f"images must be in [-1, 1], got values from {low:g} to {high:g}; 0..255 is x / 127.5 - 1")
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_rgb(x: Tensor) -> Tensor:
    """Repeat a grey channel three times; `[B, 1 or 3, H, W]` to `[B, 3, H, W]`, any dtype."""
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"images must be [B, 1, H, W] or [B, 3, H, W], got {list(x.shape)}")
    return x.expand(-1, 3, -1, -1)
