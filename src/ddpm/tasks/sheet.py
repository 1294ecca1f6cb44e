"""A table of images with labelled rows and columns."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ddpm.base.images import to_rgb, to_uint8

SMALLEST_SIDE = 64  # pixels; smaller images are enlarged by a whole number
GAP, MARGIN, FONT_SIZE = 4, 10, 13
INK, PAPER = (30, 30, 30), (255, 255, 255)


def sheet(cells: Sequence[Sequence[Tensor]], rows: Sequence[str], columns: Sequence[str], title: str = "") -> Tensor:
    """Draw a table, uint8 `[H, W, 3]`. cells: rows of images `[C, H, W]` in [-1, 1]; rows may have different lengths.

    Labels may contain line breaks; columns are widened to fit their labels.
    """
    height, width = cells[0][0].shape[-2:]
    scale = math.ceil(SMALLEST_SIDE / min(height, width))
    height, width = height * scale, width * scale
    font = ImageFont.load_default(FONT_SIZE)
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))

    def extent(text: str) -> tuple[int, int]:
        """Width and height of a text of one or more lines."""
        left, top, right, bottom = draw.multiline_textbbox((0, 0), text or " ", font=font)
        return math.ceil(right - min(left, 0)), math.ceil(bottom - min(top, 0))

    widths = [max(width, extent(label)[0]) + GAP for label in columns]
    left = MARGIN + (max(extent(label)[0] for label in rows) + MARGIN if any(rows) else 0)
    title_height = extent(title)[1] + MARGIN if title else 0
    top = MARGIN + title_height + (max(extent(label)[1] for label in columns) + GAP if any(columns) else 0)
    size = (
        max(left + sum(widths) + MARGIN - GAP, 2 * MARGIN + extent(title)[0]),
        top + len(cells) * (height + GAP) + MARGIN - GAP,
    )
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    draw.multiline_text((MARGIN, MARGIN), title, INK, font)
    middles = [left + sum(widths[:i]) + (widths[i] - GAP) // 2 for i in range(len(widths))]
    for middle, label in zip(middles, columns, strict=True):
        draw.multiline_text((middle, top - GAP), label, INK, font, anchor="md", align="center")
    for number, (images, label) in enumerate(zip(cells, rows, strict=True)):
        y = top + number * (height + GAP)
        draw.multiline_text((MARGIN, y + height // 2), label, INK, font, anchor="lm")
        for middle, image in zip(middles, images, strict=False):
            page.paste(labelled_image(image, scale), (middle - width // 2, y))
    return torch.from_numpy(np.array(page))


def beside_originals(numbers: Sequence[int], originals: Tensor, outputs: Mapping[str, Tensor], title: str) -> Tensor:
    """Table with one row per image: the original, then the outputs. outputs: images `[N, C, H, W]` by label."""
    cells = [[original, *(each[row] for each in outputs.values())] for row, original in enumerate(originals)]
    return sheet(cells, [f"image {number}" for number in numbers], ["original", *outputs], title)


def labelled_image(image: Tensor, scale: int) -> Image.Image:
    pixels = to_rgb(to_uint8(image[None].float().cpu()))[0].permute(1, 2, 0).numpy()
    return Image.fromarray(pixels.repeat(scale, axis=0).repeat(scale, axis=1))
