"""The white of 16-bit images. Files do not say how many of the bits are used."""

import contextlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from ddpm.base import check
from ddpm.data.images import FULL_WHITE, bits_of, grey_values, is_deep
from ddpm.data.sources.base import Images

NUM_SAMPLES = 32
BITS = (8, 10, 12, 14)
"""Fewer than 16, as cameras and scanners store them."""


def check_white(images: Images, white: int | None, sources: Iterable[Images]) -> None:
    """Raise ValueError for 16-bit images that would be nearly black, and for a white, `data.white`, without effect.

    sources: of all splits. The white may be that of one of them alone.
    """
    if white not in (None, FULL_WHITE) and not any(map(has_deep, sources)):
        check.fail("data.white", white, "null, because it is for grey of 16 bits, and no image has more than 8")
    found = brightest_of_sample(images)
    colours = [number for number, (_, is_grey) in found.items() if not is_grey]
    if white not in (None, FULL_WHITE) and colours:
        name = images.name(colours[0])
        check.fail("data.white", white, f"null or {FULL_WHITE} for colours of 16 bits, as of {name}, or store 8 bits")
    if white is None and (dark := describe_dark(images, found)):
        value, text = dark
        white = next(2**bits - 1 for bits in BITS if value < 2**bits)
        of_white = "Store 8 bits" if colours else f"Set data.white={white} if that is their white"
        check.fail("data.white", None, f"given: {text}. {of_white}, or data.white={FULL_WHITE} if they are so dark")


Found = Mapping[int, tuple[int, bool]]
"""The brightest value of 16-bit images by number, and whether they are grey."""


def brightest_of_sample(images: Images) -> Found:
    numbers = torch.linspace(0, len(images) - 1, min(NUM_SAMPLES, len(images))).round().int().tolist()
    return {number: value for number in numbers if (value := brightest(images, number)) is not None}


def describe_dark(images: Images, found: Found) -> tuple[int, str] | None:
    """The brightest value of 16-bit images of which none in a sample is brighter than a white of 14 bits, and a text
    about it. None for other images."""
    if not found or max(found.values())[0] >= 2 ** BITS[-1]:
        return None
    value, first = max(found.values())[0], images.name(next(iter(found)))
    text = (
        f"the brightest value in {len(found)} images of 16 bits is {value:,} of {FULL_WHITE:,}, for example in {first}"
    )
    return value, text


def has_deep(images: Images) -> bool:
    """Whether an image has more than 8 bits, by its header, or cannot be read."""
    return any(bits_in_header(images, number) > 8 for number in range(len(images)))


def bits_in_header(images: Images, number: int) -> float:
    """Bits of a channel; infinity for a broken image, which is reported later."""
    try:
        image: Any = images.image(number)
    except Exception:  # any error of a broken image
        return math.inf
    return bits_of(image) if isinstance(image, Image.Image) else 8


def brightest(images: Images, number: int) -> tuple[int, bool] | None:
    """The largest value of a 16-bit image, and whether it is grey; None for others, and for broken ones, which are
    reported later. Of colours, and of grey with transparency, Pillow reads 8 of the 16 bits."""
    with contextlib.suppress(Exception):
        image: Any = images.image(number)
        image = image[0] if isinstance(image, tuple) else image
        if isinstance(image, Image.Image) and is_deep(image):
            values, is_opaque = grey_values(image)
            return int(values.max(initial=0, where=is_opaque)), True
        if isinstance(image, Image.Image) and bits_of(image) == 16:
            return 256 * int(np.asarray(image.convert("RGB")).max()), False
    return None
