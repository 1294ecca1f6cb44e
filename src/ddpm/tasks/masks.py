"""Masks of known pixels: halves, the centre, random pixels, or an image file."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Rng
from ddpm.data.images import UnusableImage
from ddpm.data.open_image import open_image

HIDDEN = ("left", "right", "top", "bottom", "center", "random")
"""Names of unknown parts: half of the image; `center`: half of its height and width; `random`: each pixel with
probability 1/2, the same ones in every run."""


def known_pixels(mask: str, height: int, width: int) -> Tensor:
    """float32 `[H, W]`: 1 at known pixels, 0 at unknown ones. mask: one of HIDDEN, or an image file; else
    ValueError."""
    known = torch.ones(height, width)
    half_height, half_width = height // 2, width // 2
    match mask:
        case "left":
            known[:, :half_width] = 0
        case "right":
            known[:, width - half_width :] = 0
        case "top":
            known[:half_height] = 0
        case "bottom":
            known[height - half_height :] = 0
        case "center":
            top, left = (height - half_height) // 2, (width - half_width) // 2
            known[top : top + half_height, left : left + half_width] = 0
        case "random":
            known = (Rng(0, "mask").at(0, torch.zeros(1, dtype=torch.int64)).uniform("mask", (height, width)) < 0.5)[0]
        case _:
            known = of_file(mask, height, width)
    if known.all() or not known.any():
        check.fail("task.mask", mask, "an image with some white (unknown) and some black (known) pixels")
    return known.float()


def of_file(mask: str, height: int, width: int) -> Tensor:
    """bool `[H, W]` of an image file, True at white (unknown) pixels. Raises ValueError."""
    path = Path(mask)
    if not path.exists():
        hint = check.suggestion(mask, HIDDEN)
        check.fail("task.mask", mask, f"one of {', '.join(HIDDEN)}, or an image file", hint)
    try:
        image = open_image(path)
    except UnusableImage as error:
        raise ValueError(f"task.mask={mask} {error}") from error
    if (image.height, image.width) != (height, width):
        check.fail("task.mask", f"{image.height} x {image.width}", f"a mask of the images' size, {height} x {width}")
    return torch.from_numpy(np.asarray(image.convert("L")) < 128)
