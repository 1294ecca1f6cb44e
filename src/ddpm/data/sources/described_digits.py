"""Digits with captions such as "a bold leaning three", which tell the class and what is measured in the image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.strokes import slant, stroke_width
from ddpm.data.sources.base import DescribedImages, Source

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class DescribedDigits:
    """of: grey images of white digits on black, labelled 0 to 9. stroke_bounds: of the width in pixels, below and above
    which a digit is called thin and bold. slant_bounds: backward below the first, upright to the second, leaning above
    the third (in pixels to the right for each pixel upwards). Between the bounds there is no word."""

    of: Source
    stroke_bounds: Sequence[float]
    slant_bounds: Sequence[float]

    def __post_init__(self) -> None:
        for name, num in (("stroke_bounds", 2), ("slant_bounds", 3)):
            bounds = [check.number(f"data.source.{name}", bound) for bound in getattr(self, name)]
            if len(bounds) != num or sorted(bounds) != bounds:
                check.fail(f"data.source.{name}", bounds, f"{num} rising numbers")

    def open(self) -> "DescribedImages":
        digits = self.of.open()
        if int(digits.labels.min()) < 0 or int(digits.labels.max()) > 9:
            check.fail("data.source.of", type(self.of).__name__, "images of digits with labels in 0..9")
        words = [self.words(np.stack([np.asarray(digits.image(i)) for i in some])) for some in parts(len(digits))]
        digit = [DIGITS[label] for label in digits.labels.tolist()]
        stroke, lean = ([word for some in words for word in some[k]] for k in (0, 1))
        captions = [" ".join(filter(None, ("a", *each))) for each in zip(stroke, lean, digit, strict=True)]
        return DescribedImages(digits, captions)

    def words(self, pixels: np.ndarray) -> tuple[list[str], list[str]]:
        """Words for the stroke and the slant of images uint8 `[B, H, W]` or `[B, H, W, 1]`."""
        images = torch.from_numpy(pixels.reshape(len(pixels), 1, *pixels.shape[1:3])) / 127.5 - 1
        return describe(images, self.stroke_bounds, self.slant_bounds)


def parts(num: int) -> list[range]:
    return [range(first, min(first + 1000, num)) for first in range(0, num, 1000)]


def describe(images: Tensor, strokes: Sequence[float], slants: Sequence[float]) -> tuple[list[str], list[str]]:
    """Words for the stroke and the slant of images `[B, C, H, W]` in [-1, 1]; "" where there is none."""
    found = []
    for measured, bounds, words in (
        (stroke_width(images), strokes, ("thin", "", "bold")),
        (slant(images), slants, ("backward", "upright", "", "leaning")),
    ):
        places = torch.bucketize(measured, torch.tensor(list(bounds), dtype=torch.float64))
        found.append([words[place] for place in places.tolist()])
    return found[0], found[1]
