"""Random holes in training images, for inpainting: rectangles and strokes."""

from itertools import pairwise

import torch
from torch import Tensor

from ddpm.base.rng import Draws

MOST_SHAPES = 4
"""A hole is the union of 1 to MOST_SHAPES shapes, each a rectangle or a stroke with equal probability."""

RECTANGLE = 1 / 8, 1 / 2
"""Range of both sides of a rectangle, as a share of the image's sides."""

STROKE = 1 / 32, 1 / 8
"""Range of the width of a stroke, as a share of the image's sides. A stroke joins four points by straight lines."""


def random_holes(draws: Draws, height: int, width: int) -> Tensor:
    """float32 `[B, 1, height, width]`: 1 in the hole, 0 elsewhere. Lengths and positions are uniform."""
    u = draws.uniform("holes", (1 + 10 * MOST_SHAPES,))
    num_shapes = 1 + (u[:, 0] * MOST_SHAPES).floor()
    y = (torch.arange(height, device=u.device) + 0.5)[:, None] / height
    x = (torch.arange(width, device=u.device) + 0.5)[None, :] / width
    hole = torch.zeros(len(u), height, width, dtype=torch.bool, device=u.device)
    for number, of_shape in enumerate(u[:, 1:, None, None].split(10, dim=1)):
        kind, size, *points = of_shape.unbind(1)
        inside = torch.where(kind < 0.5, rectangle(y, x, size, *points[:3]), stroke(y, x, size, points))
        hole |= inside & (number < num_shapes)[:, None, None]
    return hole.float()[:, None]


def between(low: float, high: float, u: Tensor) -> Tensor:
    return low + (high - low) * u


def rectangle(y: Tensor, x: Tensor, height: Tensor, width: Tensor, middle_y: Tensor, middle_x: Tensor) -> Tensor:
    """bool `[B, H, W]`: the points (y, x) inside. height, width: in 0..1, of the range of sides."""
    inside_y = (y - middle_y).abs() <= between(*RECTANGLE, height) / 2
    return inside_y & ((x - middle_x).abs() <= between(*RECTANGLE, width) / 2)


def stroke(y: Tensor, x: Tensor, size: Tensor, points: list[Tensor]) -> Tensor:
    """bool `[B, H, W]`: the points (y, x) near the line. size: in 0..1, of the range of widths. points: y, x, y, ..."""
    radius = between(*STROKE, size) / 2
    corners = list(zip(points[::2], points[1::2], strict=True))
    near = [distance(y, x, start, end) <= radius for start, end in pairwise(corners)]
    return torch.stack(near).any(dim=0)


def distance(y: Tensor, x: Tensor, start: tuple[Tensor, Tensor], end: tuple[Tensor, Tensor]) -> Tensor:
    """Distance of the points (y, x) from the line between two points."""
    along_y, along_x = end[0] - start[0], end[1] - start[1]
    square = (along_y.square() + along_x.square()).clamp(min=1e-12)
    share = (((y - start[0]) * along_y + (x - start[1]) * along_x) / square).clamp(0, 1)
    return torch.hypot(y - start[0] - share * along_y, x - start[1] - share * along_x)
