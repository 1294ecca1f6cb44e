"""The white of 16-bit images. Files do not say how many of the bits are used."""

import contextlib
from typing import Any

import numpy as np
import torch
from PIL import Image

from ddpm.base import check
from ddpm.data.images import FULL_WHITE, is_deep
from ddpm.data.sources.base import Images

NUM_SAMPLES = 32
BITS = (8, 10, 12, 14)
"""Fewer than 16, as cameras and scanners store them."""


def require_white(images: Images) -> None:
    """Raise ValueError for 16-bit images that would be nearly black."""
    if dark := describe_dark(images):
        value, text = dark
        white = next(2**bits - 1 for bits in BITS if value < 2**bits)
        remedy = f"Set data.white={white} if that is their white, or data.white={FULL_WHITE} if they are so dark"
        check.fail("data.white", None, f"given: {text}. {remedy}")


def describe_dark(images: Images) -> tuple[int, str] | None:
    """The brightest value of 16-bit images of which none in a sample is brighter than a white of 14 bits, and a text
    about it. None for other images."""
    numbers = torch.linspace(0, len(images) - 1, min(NUM_SAMPLES, len(images))).round().int().tolist()
    found = {number: value for number in numbers if (value := brightest(images, number)) is not None}
    if not found or max(found.values()) >= 2 ** BITS[-1]:
        return None
    value, first = max(found.values()), images.name(next(iter(found)))
    text = (
        f"the brightest value in {len(found)} images of 16 bits is {value:,} of {FULL_WHITE:,}, for example in {first}"
    )
    return value, text


def brightest(images: Images, number: int) -> int | None:
    """The largest value of a 16-bit grey image; None for others, and for broken ones, which are reported later."""
    with contextlib.suppress(Exception):
        image: Any = images.image(number)
        image = image[0] if isinstance(image, tuple) else image
        if isinstance(image, Image.Image) and is_deep(image):
            return int(np.asarray(image).max())
    return None
