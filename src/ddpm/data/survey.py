"""What a data set holds, counted image by image as training would read them, without holding the images."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ddpm.data.decode import BatchReader, Decoder, Inspections, Problem
from ddpm.data.images import is_deep, turn_upright

LEVELS = 256


@dataclass
class Facts:
    """Of the images as stored, each with its number. sizes: by (height, width). modes: by Pillow's name, "array" for
    pixels without a file. bits: of a pixel's channel."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    bits: Counter[int] = field(default_factory=Counter)

    def note(self, image: Image.Image | np.ndarray) -> Image.Image | np.ndarray:
        """Count an image. Returns it upright."""
        if isinstance(image, np.ndarray):
            mode, bits = "array", 8
        else:
            mode, bits = image.mode, bits_of(image)  # before it is decoded
            image = turn_upright(image)
        self.modes[mode] += 1
        self.bits[bits] += 1
        self.sizes[image.shape[:2] if isinstance(image, np.ndarray) else (image.height, image.width)] += 1
        return image

    def add(self, other: "Facts") -> None:
        for ours, theirs in ((self.sizes, other.sizes), (self.modes, other.modes), (self.bits, other.bits)):
            ours.update(theirs)


def bits_of(image: Image.Image) -> int:
    """Bits of a channel in the file. Pillow reads colours of 16 bits as 8, and says so in its raw mode ("RGB;16B")."""
    if image.mode == "1":
        return 1
    is_16 = image.mode.startswith("I;16") or any(";16" in str(tile[-1]) for tile in getattr(image, "tile", ()))
    return 16 if is_16 else 32 if image.mode == "F" or is_deep(image) else 8


@dataclass(frozen=True)
class Noting:
    """A preparation that counts the images that pass through it."""

    preparation: Callable[[Any], np.ndarray]
    shape: tuple[int, int, int]
    facts: Facts

    def __call__(self, image: Any) -> np.ndarray:
        if isinstance(image, tuple):  # with its label image
            return self.preparation((self.facts.note(image[0]), *image[1:]))
        return self.preparation(self.facts.note(image))


@dataclass
class Survey:
    """facts: of all images that can be opened. digests: uint8 `[N, 32]`, sha256 of the prepared pixels. levels: int64
    `[C, 256]`, the number of prepared pixels with each level in each channel, of the images without a problem."""

    facts: Facts
    digests: Tensor
    problems: list[Problem]
    levels: Tensor

    def moments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Lowest and highest value, mean and standard deviation of each channel in [-1, 1], float64 `[C]`."""
        value = torch.arange(LEVELS, dtype=torch.float64) / 127.5 - 1
        share = self.levels.double() / self.levels.sum(1, keepdim=True)
        mean = share @ value
        deviation = (share * (value - mean[:, None]).square()).sum(1).sqrt()
        found = torch.where(self.levels > 0, value, torch.nan).numpy()
        return torch.from_numpy(np.nanmin(found, 1)), torch.from_numpy(np.nanmax(found, 1)), mean, deviation

    def duplicates(self) -> list[list[int]]:
        """The numbers of the images that have exactly the same pixels, for each such group."""
        groups: dict[bytes, list[int]] = {}
        broken = {problem.number for problem in self.problems}
        for number, digest in enumerate(self.digests.numpy()):
            if number not in broken:
                groups.setdefault(digest.tobytes(), []).append(number)
        return [numbers for numbers in groups.values() if len(numbers) > 1]


class Surveyor(Dataset):
    """A survey of a batch, for the workers of a `BatchReader`."""

    def __init__(self, decoder: Decoder, channels: int):
        self.decoder, self.channels = decoder, channels

    def __getitems__(self, indices: list[int]) -> Survey:
        facts, preparation = Facts(), self.decoder.preparation
        decoder = replace(self.decoder, preparation=Noting(preparation, preparation.shape, facts))
        pixels, digests, problems = Inspections(decoder, keep=True).__getitems__(indices)
        broken = {problem.number for problem in problems}
        sound = pixels[[row for row, number in enumerate(indices) if number not in broken], : self.channels]
        levels = [torch.bincount(sound[:, c].flatten(), minlength=LEVELS) for c in range(self.channels)]
        return Survey(facts, digests, problems, torch.stack(levels))


def survey(
    decoder: Decoder, channels: int, num_workers: int, show: Callable[[int], None], batch_size: int = 128
) -> Survey:
    """Read each image once. channels: of the images. show: is told how many are done."""
    num = len(decoder.images)
    total = Survey(Facts(), torch.empty(num, 32, dtype=torch.uint8), [], torch.zeros(channels, LEVELS).long())
    done = 0
    for part in BatchReader(Surveyor(decoder, channels), num_workers).read(list(torch.arange(num).split(batch_size))):
        total.facts.add(part.facts)
        total.digests[done : done + len(part.digests)] = part.digests
        total.problems += part.problems
        total.levels += part.levels
        done += len(part.digests)
        show(done)
    return total
