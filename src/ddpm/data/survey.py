"""What a data set holds, counted image by image as training would read them, without holding the images."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ddpm.data.decode import Decoder
from ddpm.data.images import bits_of, turn_upright
from ddpm.data.inspection import Inspections
from ddpm.data.problems import Problem
from ddpm.data.workers import BatchReader

Stored = tuple[tuple[int, int], str, int]
"""(height, width) of an upright image, its Pillow mode ("array" without a file) and whether it is one of several
frames or has a colour profile, and the bits of a channel."""


@dataclass
class Survey:
    """stored: the number of images of each kind, of those that can be opened. digests: uint8 `[N, 32]`, sha256 of the
    prepared pixels. levels: int64 `[C, 256]`, the number of pixels with each level, of images without a problem."""

    stored: Counter[Stored]
    digests: Tensor
    problems: list[Problem]
    levels: Tensor

    def moments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Lowest and highest value, mean and standard deviation of each channel in [-1, 1], float64 `[C]`."""
        value, is_used = torch.arange(256, dtype=torch.float64) / 127.5 - 1, self.levels > 0
        share = self.levels.double() / self.levels.sum(1, keepdim=True)
        mean = share @ value
        deviation = (share * (value - mean[:, None]).square()).sum(1).sqrt()
        return torch.where(is_used, value, 2).amin(1), torch.where(is_used, value, -2).amax(1), mean, deviation

    def duplicates(self) -> list[list[int]]:
        """The numbers of the images that have exactly the same pixels, for each such group."""
        groups: dict[bytes, list[int]] = {}
        broken = {problem.number for problem in self.problems}
        for number, digest in enumerate(self.digests.numpy()):
            if number not in broken:
                groups.setdefault(digest.tobytes(), []).append(number)
        return [numbers for numbers in groups.values() if len(numbers) > 1]


def count(stored: Counter[Stored], image: Any) -> Any:
    """Count an image, or one with its label image. Returns it upright."""
    if isinstance(image, tuple):
        return (count(stored, image[0]), *image[1:])
    if isinstance(image, np.ndarray):
        stored[image.shape[:2], "array", 8] += 1
        return image
    bits = bits_of(image)  # before it is decoded
    frames = ", the first of several frames" if getattr(image, "n_frames", 1) > 1 else ""
    profile = "" if is_srgb(image) else ", with a colour profile, which is not applied"
    upright = turn_upright(image)
    stored[(upright.height, upright.width), image.mode + frames + profile, bits] += 1
    return upright


def is_srgb(image: Image.Image) -> bool:
    """Whether its ICC profile has the name sRGB, in ASCII or UTF-16, or is missing."""
    profile = image.info.get("icc_profile")
    return not profile or b"sRGB" in profile.replace(b"\0", b"")


@dataclass(frozen=True)
class Surveyor(Dataset):
    """Surveys of batches, for the workers of a `BatchReader`. channels: of the images, without labels."""

    decoder: Decoder
    channels: int

    def __getitems__(self, indices: list[int]) -> Survey:
        stored: Counter[Stored] = Counter()
        inspections = Inspections(replace(self.decoder, see=partial(count, stored)), keep=True)
        pixels, digests, problems = inspections.__getitems__(indices)
        broken = {problem.number for problem in problems}
        sound = pixels[[number not in broken for number in indices], : self.channels]
        levels = [torch.bincount(sound[:, c].flatten(), minlength=256) for c in range(self.channels)]
        return Survey(stored, digests, problems, torch.stack(levels))


def survey(decoder: Decoder, channels: int, workers: int, show: Callable[[int], None], batch_size: int = 128) -> Survey:
    """Read each image once. channels: of the images. show: gets the number of images that are done."""
    digests, plan = [], torch.arange(len(decoder.images)).split(batch_size)
    total = Survey(Counter(), torch.empty(0), [], torch.zeros(channels, 256, dtype=torch.int64))
    for part in BatchReader(Surveyor(decoder, channels), workers).read(list(plan)):
        total.stored.update(part.stored)
        total.problems += part.problems
        total.levels += part.levels
        digests.append(part.digests)
        show(sum(map(len, digests)))
    total.digests = torch.cat(digests)
    return total
