"""Four kinds of synthetic lesions in drawings, as functions of images and random draws."""

from collections.abc import Callable

import torch
from torch import Tensor

from ddpm.base.rng import Draws

Lesion = Callable[[Tensor, Tensor, Draws], Tensor]
"""Maps images in [0, 1], `[N, C, H, W]`, and their backgrounds, `[N, C, 1, 1]`, to images with a lesion."""


def stroke(images: Tensor, background: Tensor, draws: Draws) -> Tensor:
    """A bent stroke, as wide and about as bright as those of a digit."""
    side = min(images.shape[-2:])
    u = draws.uniform("stroke", (7,)).double()
    middle = 0.25 + 0.5 * u[:, :2]  # of height and width
    angle, bend = 2 * torch.pi * u[:, 2], (u[:, 3] - 0.5) * 0.3
    length, width = 0.25 + 0.2 * u[:, 4], (0.06 + 0.04 * u[:, 5]) * side
    along = torch.linspace(-0.5, 0.5, 33, dtype=torch.float64)
    direction = torch.stack([angle.sin(), angle.cos()], 1)
    across = torch.stack([angle.cos(), -angle.sin()], 1)
    offset = along * length[:, None]
    arch = (0.25 - along.square()) * 4 * (bend * length)[:, None]
    points = middle[:, None] + offset[..., None] * direction[:, None] + arch[..., None] * across[:, None]
    rows, columns = places(images)
    down = rows[:, None] - points[..., 0, None, None] * images.shape[-2]
    over = columns[:, None] - points[..., 1, None, None] * images.shape[-1]
    nearest = (down.square() + over.square()).amin(1).sqrt()  # [N, H, W]
    ink = (width[:, None, None] / 2 + 0.5 - nearest).clamp(0, 1) * (0.75 + 0.25 * u[:, 6])[:, None, None]
    return towards(images, opposite(background), ink)


def blob(images: Tensor, background: Tensor, draws: Draws) -> Tensor:
    """A spot with a soft edge."""
    u = draws.uniform("blob", (4,)).double()
    squared = distance(images, 0.2 + 0.6 * u[:, :2]).square()
    radius = (0.06 + 0.05 * u[:, 2]) * min(images.shape[-2:])
    spot = torch.exp(-squared / (2 * radius.square()[:, None, None])) * (0.6 + 0.4 * u[:, 3])[:, None, None]
    return towards(images, opposite(background), spot)


def texture(images: Tensor, background: Tensor, draws: Draws) -> Tensor:
    """A round patch of stripes or (at random) checks, with a period of at least 2.5 pixels."""
    u = draws.uniform("texture", (7,)).double()
    rows, columns = places(images)
    angle, wavelength = torch.pi * u[:, 2], (2.5 + 1.5 * u[:, 3]) * max(1, min(images.shape[-2:]) / 28)
    one, other = (
        torch.sin(2 * torch.pi * (columns * torch.cos(each) + rows * torch.sin(each)) / wavelength[:, None, None])
        for each in (angle[:, None, None], (angle + torch.pi / 2)[:, None, None])
    )
    pattern = 0.5 + 0.5 * torch.where((u[:, 4] < 0.5)[:, None, None], one, one * other)
    radius = (0.12 + 0.06 * u[:, 5])[:, None, None] * min(images.shape[-2:])
    inside = (radius + 0.5 - distance(images, 0.25 + 0.5 * u[:, :2])).clamp(0, 1)
    drawn = background + (opposite(background) - background) * (pattern * (0.7 + 0.3 * u[:, 6])[:, None, None])[:, None]
    return images + (drawn - images) * inside[:, None]


def missing_stroke(images: Tensor, background: Tensor, draws: Draws) -> Tensor:
    """A part of a stroke is replaced by background."""
    height, width = images.shape[-2:]
    ink = (images - background).abs().amax(1).flatten(1)
    inked = ink > ink.amax(1, keepdim=True) / 2
    place = (draws.uniform("place", (height * width,)) + inked).argmax(1)
    center = torch.stack([(place // width + 0.5) / height, (place % width + 0.5) / width], 1).double()
    radius = (0.09 + 0.07 * draws.uniform("radius", ()).double())[:, None, None] * min(height, width)
    hole = (radius + 0.5 - distance(images, center)).clamp(0, 1)
    return towards(images, background, hole)


LESIONS: dict[str, Lesion] = {"stroke": stroke, "blob": blob, "texture": texture, "missing": missing_stroke}


def places(images: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates of the pixel centres: rows `[1, H, 1]` and columns `[1, 1, W]`."""
    height, width = (torch.arange(side, dtype=torch.float64) + 0.5 for side in images.shape[-2:])
    return height.view(1, -1, 1), width.view(1, 1, -1)


def distance(images: Tensor, center: Tensor) -> Tensor:
    """Distance of each pixel from a centre, `[N, H, W]` in pixels. center: `[N, 2]`, as shares of height and width."""
    rows, columns = places(images)
    down = rows - center[:, 0, None, None] * images.shape[-2]
    return torch.hypot(down, columns - center[:, 1, None, None] * images.shape[-1])


def opposite(background: Tensor) -> Tensor:
    """The contrasting colour: white for a dark background, black for a bright one."""
    return (background < 0.5).to(background.dtype)


def towards(images: Tensor, colour: Tensor, share: Tensor) -> Tensor:
    """Interpolate images towards a colour. share: `[N, H, W]`, weight of the colour."""
    return images + (colour - images) * share[:, None]
