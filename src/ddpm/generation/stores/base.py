"""What every store of generated images can do: say which are there, take more, and finish."""

import hashlib
import io
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, ClassVar

import numpy as np
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from ddpm.base.atomic import atomic_write

SIZE = 8  # bytes of a checksum
GRID, GIF = -2, -1  # the numbers of the pictures among the checksums


def checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=SIZE).digest()


def is_picture(file: Path | IO[bytes]) -> bool:
    """Whether there is one that can be read to its end."""
    try:
        for frame in ImageSequence.Iterator(Image.open(file)):
            frame.load()
    except Exception:  # whatever damaged files provoke
        return False
    return True


class ImageStore(ABC):
    """Holds the samples 0..num_samples-1 in `folder`; image_shape: `(C, H, W)`.

    Processes write different samples at once. What is there is whole whenever they are killed; a power cut is another
    matter, since nothing waits for the disk. images.sums has the checksum of each sample at the place of its number,
    written before the sample: one that differs, or has none, is damaged, but for folders of before, without the file.
    """

    NUM_FIRST = 64  # of which a picture is drawn
    continues: ClassVar[bool]  # whether what a killed process wrote is kept
    grows: ClassVar[bool]  # whether a finished one takes further samples

    def __init__(self, folder: Path, num_samples: int, image_shape: tuple[int, int, int]) -> None:
        self.folder, self.num_samples = folder, num_samples
        channels, height, width = image_shape
        self.shape = (height, width, channels)
        self.num_first = min(self.NUM_FIRST, num_samples)
        self.sums = folder / "images.sums"

    def done_mask(self) -> Tensor:
        """bool `[num_samples]`, which samples need not be made again. Reads only, and before `begin` too."""
        fits = self.fits()
        found = {number for number, data in self.stored() if fits(number, data)}
        return torch.tensor([number in found for number in range(self.num_samples)])

    @abstractmethod
    def stored(self) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of each sample that seems to be there."""

    def is_image(self, data: bytes) -> bool:
        return len(data) == math.prod(self.shape)

    def fits(self) -> Callable[[int, bytes], bool]:
        """Whether the bytes of a sample are what was written or, where there are no checksums yet, an image."""
        if not self.sums.exists():
            return lambda number, data: self.is_image(data)
        known = memoryview(self.sums.read_bytes())
        return lambda number, data: known[SIZE * (number + 2) :][:SIZE] == checksum(data)

    def holds(self, number: int, picture: Path) -> bool:
        """Whether one of the two pictures is there as it was drawn."""
        noted = self.sums.read_bytes()[SIZE * (number + 2) :][:SIZE] if self.sums.exists() else b""
        return is_picture(picture) and (not any(noted) or noted == checksum(picture.read_bytes()))

    def seal(self, number: int, data: bytes) -> None:
        if self.continues:
            with open(self.sums, "r+b") as file:
                file.seek(SIZE * (number + 2))
                file.write(checksum(data) if data else bytes(SIZE))

    def adopt(self) -> None:
        """Gives checksums to what an older version stored."""
        if not self.sums.exists():
            with atomic_write(self.sums) as partial, open(partial, "wb") as file:
                for number, data in self.stored():
                    file.seek(SIZE * (number + 2))
                    file.write(checksum(data) if self.is_image(data) else bytes(SIZE))

    @abstractmethod
    def begin(self) -> None:
        """On one process, before any writes."""

    @abstractmethod
    def write(self, number: int, image: np.ndarray) -> None:
        """image: uint8 `[H, W, C]`. One that is there already is replaced."""

    @abstractmethod
    def finish(self) -> np.ndarray:
        """On one process, once all samples are there. Returns the first, uint8 `[num_first, H, W, C]`."""


def save_png(path: Path, image: np.ndarray, seal: Callable[[bytes], None] = lambda data: None) -> None:
    """image: uint8 `[H, W, 1 or 3]`. Encoded in memory, since Pillow's errors of writing do not name a full disk."""
    encoded = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(encoded, "PNG")
    seal(encoded.getvalue())
    with atomic_write(path) as partial:
        partial.write_bytes(encoded.getvalue())
