"""Image grids, plots of 2-D points, and GIFs."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.utils import make_grid

POINT = (1, 1, 2)
"""Image shape (C, H, W) of a 2-D point, as in data=swirl: the two pixels are x and y."""

SMALLEST_SIDE, FONT_SIZE, MARGIN = 64, 13, 4
"""Pixels. Smaller images are enlarged by a whole number."""

INK, PAPER = (30, 30, 30), (255, 255, 255)

Colour = tuple[int, int, int]
BLUE, ORANGE, FRAME, AXES = (31, 87, 168), (235, 120, 20), (150, 150, 150), (225, 225, 225)


def tile_images(images: Tensor, num_columns: int | None = None) -> Tensor:
    """Grid of images, uint8 `[B, C, H, W]`, as one picture, uint8 `[H', W', 3]` on the CPU; about square by default.

    2-D points are plotted in one frame. With `num_columns`, there is one frame per column, in which the points of even
    rows are blue and those of odd rows orange.
    """
    if images.shape[1:] == POINT:
        return plane(images.cpu(), num_columns)
    columns = num_columns or math.ceil(math.sqrt(len(images)))
    return make_grid(enlarge(images.cpu()), nrow=columns, padding=2, pad_value=128).permute(1, 2, 0).contiguous()


def enlarge(images: Tensor, side: int = SMALLEST_SIDE) -> Tensor:
    """Images `[B, C, H, W]` whose smaller side has at least `side` pixels: each pixel becomes a square."""
    scale = math.ceil(side / min(images.shape[-2:]))
    return images.repeat_interleave(scale, -1).repeat_interleave(scale, -2)


def tile_by_class(images: Tensor, labels: Sequence[int], name_of: Callable[[int], str]) -> Tensor:
    """Picture of images, uint8 `[B, C, H, W]`, with one named row per class; as `tile_images` for a single class.

    labels: class of each image, or -1; the row of -1 is the last.
    """
    classes = sorted(set(labels), key=lambda label: (label < 0, label))
    if len(classes) == 1 or images.shape[1:] == POINT:
        return tile_images(images)
    images = images.cpu()
    rows = [images[[number for number, label in enumerate(labels) if label == each]] for each in classes]
    widest = max(map(len, rows))
    paper = images.new_full((widest, *images.shape[1:]), 255)
    cells = torch.cat([part for row in rows for part in (row, paper[len(row) :])])
    return annotate(tile_images(cells, widest), rows=[name_of(each) for each in classes])


def annotate(picture: Tensor, title: str = "", rows: Sequence[str] = (), columns: Sequence[str] = ()) -> Tensor:
    """The picture, uint8 `[H, W, 3]`, with a title and labels in black on white; a page is as wide as its title.

    The rows divide the height of the picture evenly, and the columns its width.
    """
    font, (height, width) = ImageFont.load_default(FONT_SIZE), picture.shape[:2]
    line = FONT_SIZE + MARGIN
    left = math.ceil(max(map(font.getlength, rows))) + 2 * MARGIN if rows else 0
    top = line * (bool(title) + bool(columns))
    size = max(left + width, math.ceil(font.getlength(title)) + 2 * MARGIN), top + height
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, line / 2), title, INK, font, anchor="lm")
    for number, label in enumerate(rows):
        draw.text((MARGIN, top + (number + 0.5) * height / len(rows)), label, INK, font, anchor="lm")
    for number, label in enumerate(columns):
        draw.text((left + (number + 0.5) * width / len(columns), top - line / 2), label, INK, font, anchor="mm")
    page.paste(Image.fromarray(picture.numpy()), (left, top))
    return torch.from_numpy(np.array(page))


def plane(points: Tensor, num_columns: int | None) -> Tensor:
    if num_columns is None:
        return draw_points([(points, BLUE)], scale=2)
    columns = [points[first::num_columns] for first in range(num_columns)]
    return torch.cat([draw_points([(each[::2], BLUE), (each[1::2], ORANGE)], scale=1) for each in columns], dim=1)


def draw_points(layers: Sequence[tuple[Tensor, Colour]], scale: int) -> Tensor:
    """Scatter plot, uint8 `[side, side, 3]`, of layers of points, uint8 `[N, 1, 1, 2]`, with their colours.

    x points to the right and y upwards. scale: pixels per level of a coordinate.
    """
    low, middle, high = (scale * (8 + level) for level in (0, 128, 255))
    side = high + low + 1
    paper = torch.full((side, side, 3), 255.0)
    for line, colour in ((middle, AXES), (low, FRAME), (high, FRAME)):
        paper[line, low : high + 1] = paper[low : high + 1, line] = torch.tensor(colour).float()
    for points, colour in layers:
        x, y = points.reshape(-1, 2).long().unbind(1)
        numbers = torch.zeros(side, side)
        numbers.index_put_((high - scale * y, low + scale * x), torch.ones(len(x)), accumulate=True)
        radius = scale * min(max(25 / math.sqrt(max(len(x), 1)), 1.25), 2.5)  # larger for fewer than 400 points
        covered = opacity(numbers, radius)[:, :, None]
        paper = paper * (1 - covered) + torch.tensor(colour) * covered
    return paper.round().to(torch.uint8)


def opacity(numbers: Tensor, radius: float) -> Tensor:
    """Opacity in [0, 1], `[H, W]`, of translucent discs. numbers: `[H, W]`, the number of discs centred at each pixel.

    Each disc transmits 40 %, so dense regions are darker.
    """
    reach = math.ceil(radius)
    offsets = torch.arange(-reach, reach + 1)
    distance = torch.hypot(offsets[:, None].float(), offsets.float())
    disc = 0.6 * (radius + 0.5 - distance).clamp(0, 1)  # with a soft edge of one pixel
    passing = F.conv2d(numbers[None, None], (1 - disc).log()[None, None], padding=reach)
    return 1 - passing[0, 0].exp()


def save_gif(path: Path, frames: Sequence[Tensor], seconds: float = 4, hold_seconds: float = 2) -> None:
    """Write frames, uint8 `[H, W, 3]`, as a looping GIF of `seconds`; the last frame stays for `hold_seconds`."""
    images = [Image.fromarray(frame.numpy()) for frame in frames]
    each = round(1000 * seconds / len(images))
    durations = [each] * (len(images) - 1) + [round(1000 * hold_seconds)]
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
