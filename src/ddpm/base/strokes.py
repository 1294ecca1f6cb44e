"""Stroke width and slant of white lines on black, measured in images."""

import torch
import torch.nn.functional as F
from torch import Tensor


def ink(images: Tensor) -> Tensor:
    """The mean of the channels, float64 `[B, H, W]` from 0 (black) to 1 (white)."""
    return (images.double().mean(dim=1) + 1) / 2


def stroke_width(images: Tensor) -> Tensor:
    """Width in pixels of white lines on black: 2 * area / outline, because a long line has an outline on each side.

    The outline is the total variation: the length of the contour at a grey level, averaged over all grey levels.
    """
    ground = F.pad(ink(images), (1, 1, 1, 1))
    here, below, right = ground[:, :-1, :-1], ground[:, 1:, :-1], ground[:, :-1, 1:]
    outline = torch.hypot(below - here, right - here).sum((1, 2))
    return 2 * ground.sum((1, 2)) / outline.clamp(min=1e-6)


def slant(images: Tensor) -> Tensor:
    """Slope of the least-squares line through the white pixels, in pixels to the right per pixel upwards."""
    weight = ink(images)
    rows, columns = (torch.arange(side, device=images.device, dtype=weight.dtype) for side in weight.shape[1:])
    total = weight.sum((1, 2), keepdim=True).clamp(min=1e-6)
    y = rows[:, None] - (weight * rows[:, None]).sum((1, 2), keepdim=True) / total
    x = columns - (weight * columns).sum((1, 2), keepdim=True) / total
    return -(weight * x * y).sum((1, 2)) / (weight * y.square()).sum((1, 2)).clamp(min=1e-6)
