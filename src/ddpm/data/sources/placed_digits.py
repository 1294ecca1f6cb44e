"""Digits enlarged by different factors and placed on a larger canvas: larger images that need no download."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpm.base import check
from ddpm.base.memory import require_memory
from ddpm.base.rng import Rng
from ddpm.data.sources.base import Images, Source, sha256_of_parts

NUM_BYTES = 100  # of the drawn numbers of an image


@dataclass(frozen=True)
class PlacedDigits:
    """of: grey images. size: side of the canvas. smallest, largest: range of the factors, uniform.

    Digit, factor and place of image i are a function of i alone, so more images only add to fewer.
    """

    of: Source
    num_images: check.PositiveInt
    size: check.PositiveInt
    smallest: Annotated[float, check.numbers(low=0.1)]
    largest: float

    def __post_init__(self) -> None:
        check.fields(self)
        check.number("largest", self.largest, low=self.smallest)

    def open(self) -> "PlacedImages":
        require_memory(NUM_BYTES * self.num_images, f"data.source.num_images={self.num_images}")
        digits = self.of.open()
        side = max(np.asarray(digits.image(0)).shape[:2])
        if self.largest * side > self.size:
            at_most = f"at most {self.size / side:g}: digits of {side} pixels must fit"
            check.fail("data.source.largest", self.largest, at_most)
        draws = Rng(0, "placed_digits").at(0, torch.arange(self.num_images))
        factor = self.smallest + (self.largest - self.smallest) * draws.uniform("factor").double()
        sides = (factor * side).round().long()
        room = (self.size - sides + 1)[:, None]
        places = (draws.uniform("place", (2,)) * room).long()
        return PlacedImages(digits, self.size, draws.integers("digit", len(digits)), sides, places)


@dataclass(frozen=True)
class PlacedImages:
    """numbers, sides: int64 `[N]`, the digit of each image and its side there; places: int64 `[N, 2]`, top and left."""

    digits: Images
    size: int
    numbers: Tensor
    sides: Tensor
    places: Tensor

    @property
    def labels(self) -> Tensor:
        return self.digits.labels[self.numbers]

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.digits.class_names)

    def __len__(self) -> int:
        return len(self.numbers)

    def image(self, index: int) -> np.ndarray:
        digit, side = np.asarray(self.digits.image(int(self.numbers[index]))).squeeze(), int(self.sides[index])
        (top, left), canvas = self.places[index].tolist(), np.zeros((self.size, self.size), np.uint8)
        enlarged = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
        canvas[top : top + side, left : left + side] = np.asarray(enlarged)
        return canvas

    def name(self, index: int) -> str:
        return f"placed_digits image {index}"

    def fingerprint(self) -> str:
        parts = [self.numbers, self.sides, self.places]
        return sha256_of_parts([self.digits.fingerprint(), str(self.size), *(part.numpy().tobytes() for part in parts)])
