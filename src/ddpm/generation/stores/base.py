"""Interface of image stores: report stored samples, write samples, finish."""

import hashlib
import io
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, ClassVar

import numpy as np
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from ddpm.base.atomic import atomic_write

SIZE = 8  # bytes of a checksum
GRID, GIF = -2, -1  # numbers of both pictures in the list of checksums


def checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=SIZE).digest()


def is_picture(file: Path | IO[bytes]) -> bool:
    """Whether the file is an image that can be decoded completely."""
    try:
        for frame in ImageSequence.Iterator(Image.open(file)):
            frame.load()
    except Exception:  # any error of a damaged file
        return False
    return True


class ImageStore(ABC):
    """Holds the samples 0..num_samples-1 in `folder`; image_shape: `(C, H, W)`. labels: int64 `[num_samples]`, the
    requested classes, -1 for no class; None, or if all are -1: the samples have no labels. captions: the requested
    texts, "" for none, through which samples cycle; None, or if all are empty: the samples have no captions.

    Several processes can write different samples at the same time. Stored samples stay intact if processes are killed,
    but not in a power cut, because writes are not synced. images.sums contains the checksum of each sample, written
    before the sample. A sample without a matching checksum is damaged, except in older folders without this file.
    """

    NUM_FIRST = 64  # number of samples in the grid
    continues: ClassVar[bool]  # whether a killed generation can be continued
    grows: ClassVar[bool]  # whether samples can be added to a finished store

    def __init__(
        self,
        folder: Path,
        num_samples: int,
        image_shape: tuple[int, int, int],
        labels: Tensor | None = None,
        captions: Sequence[str] | None = None,
    ) -> None:
        self.folder, self.num_samples = folder, num_samples
        self.labels = None if labels is None or (labels < 0).all() else labels.numpy()
        self.captions = (
            [captions[k % len(captions)] for k in range(num_samples)] if captions and any(captions) else None
        )
        channels, height, width = image_shape
        self.shape = (height, width, channels)
        self.num_first = min(self.NUM_FIRST, num_samples)
        self.sums = folder / "images.sums"

    def done_mask(self) -> Tensor:
        """bool `[num_samples]`, samples that are stored and intact. Only reads, and works before `begin`."""
        fits = self.fits()
        found = {number for number, data in self.stored() if fits(number, data)}
        return torch.tensor([number in found for number in range(self.num_samples)])

    @abstractmethod
    def stored(self) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of each stored sample, intact or not."""

    def is_image(self, data: bytes) -> bool:
        return len(data) == math.prod(self.shape)

    def fits(self) -> Callable[[int, bytes], bool]:
        """Returns a check whether the bytes of a sample match its checksum or, without checksums, are an image."""
        if not self.sums.is_file():
            return lambda number, data: self.is_image(data)
        known = memoryview(self.sums.read_bytes())
        return lambda number, data: known[SIZE * (number + 2) :][:SIZE] == checksum(data)

    def holds(self, number: int, picture: Path) -> bool:
        """Whether a picture (GRID or GIF) exists and is intact."""
        noted = self.sums.read_bytes()[SIZE * (number + 2) :][:SIZE] if self.sums.is_file() else b""
        return is_picture(picture) and (not any(noted) or noted == checksum(picture.read_bytes()))

    def seal(self, number: int, data: bytes) -> None:
        if self.continues:
            with open(self.sums, "r+b") as file:
                file.seek(SIZE * (number + 2))
                file.write(checksum(data) if data else bytes(SIZE))

    def adopt(self) -> None:
        """Add what is missing to samples stored by an older version: their checksums, and labels and captions if the
        store has a place for them."""
        if not self.sums.is_file():
            with atomic_write(self.sums) as partial, open(partial, "wb") as file:
                for number, data in self.stored():
                    file.seek(SIZE * (number + 2))
                    file.write(checksum(data) if self.is_image(data) else bytes(SIZE))

    @abstractmethod
    def begin(self) -> None:
        """Prepare the folder. Called on one process, before any process writes."""

    @abstractmethod
    def write(self, number: int, image: np.ndarray) -> None:
        """Write or replace a sample. image: uint8 `[H, W, C]`."""

    @abstractmethod
    def finish(self) -> np.ndarray:
        """Finish on one process when all samples are written. Returns the first, uint8 `[num_first, H, W, C]`."""


def save_png(path: Path, image: np.ndarray, seal: Callable[[bytes], None] = lambda data: None) -> None:
    """image: uint8 `[H, W, 1 or 3]`."""
    save_picture(path, image, "PNG", seal)


def save_picture(path: Path, image: np.ndarray, encoding: str, seal: Callable[[bytes], None]) -> None:
    """Encoded in memory, because Pillow's write errors do not report a full disk. encoding: Pillow's name of it."""
    encoded = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(encoded, encoding)
    seal(encoded.getvalue())
    with atomic_write(path) as partial:
        partial.write_bytes(encoded.getvalue())
