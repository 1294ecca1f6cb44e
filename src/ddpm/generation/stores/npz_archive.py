"""All images in samples.npz: `arr_0`, uint8 `[N, H, W, C]`, and their classes, if any, as `arr_1`, int64 `[N]`.

This is the layout of guided diffusion's samples and evaluations. Captions, if any, are in `captions`, as text `[N]`.
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ddpm.base.atomic import atomic_write
from ddpm.checkpoint.integrity import find_damage
from ddpm.data.sources.npz import CAPTIONS
from ddpm.generation.stores.base import ImageStore
from ddpm.generation.stores.row_file import RowFile


class NpzArchive(ImageStore):
    """Samples are written to a working file, which becomes the archive at the end. Samples cannot be added later."""

    continues, grows = True, False

    @property
    def archive(self) -> Path:
        return self.folder / "samples.npz"

    @property
    def rows(self) -> RowFile:
        return RowFile(self.folder / ".samples.rows", self.num_samples, self.shape)

    def stored(self) -> Iterator[tuple[int, bytes]]:
        """As in `ImageStore`. If the archive cannot be read completely, its first sample counts as damaged."""
        if not self.archive.exists():
            yield from self.rows.written()
            return
        reliable = find_damage(self.archive) is None
        with open(self.archive, "rb") as file:
            file.seek(self.offset())
            for number in range(self.num_samples):
                row = file.read(math.prod(self.shape))
                yield number, row if reliable or (number and self.sums.exists()) else b""

    def offset(self) -> int:
        """Offset of the first pixel in the archive."""
        with open(self.archive, "rb") as file:
            head = file.read(1024)
        start = head.find(b"\x93NUMPY") + 10
        return start + int.from_bytes(head[start - 2 : start], "little")

    def begin(self) -> None:
        """As in `ImageStore`. Intact samples of a damaged archive are copied to the working file."""
        done_mask = self.done_mask()
        if not self.archive.exists() or not done_mask.all():
            self.rows.create()
            for number, row in self.stored() if self.archive.exists() else ():
                if done_mask[number]:
                    self.rows.write(number, np.frombuffer(row, np.uint8))
            self.archive.unlink(missing_ok=True)
        self.adopt()

    def adopt(self) -> None:
        super().adopt()
        if (beside := self.beside()) and self.archive.exists():
            with np.load(self.archive, allow_pickle=False) as arrays:
                has_all = all(n in arrays.files and np.array_equal(arrays[n], each) for n, each in beside.items())
            if not has_all:
                self.pack(np.memmap(self.archive, np.uint8, "r", self.offset(), (self.num_samples, *self.shape)))

    def write(self, number: int, image: np.ndarray) -> None:
        self.seal(number, image.tobytes())
        self.rows.write(number, image)

    def finish(self) -> np.ndarray:
        if not self.archive.exists():
            self.pack(self.rows.images())
        self.rows.path.unlink(missing_ok=True)
        first = bytearray().join(row for _, row in itertools.islice(self.stored(), self.num_first))
        return np.frombuffer(first, np.uint8).reshape(-1, *self.shape)

    def beside(self) -> dict[str, np.ndarray]:
        """The arrays beside the pixels."""
        found = {"arr_1": self.labels, CAPTIONS: None if self.captions is None else np.array(self.captions)}
        return {name: array for name, array in found.items() if array is not None}

    def pack(self, images: np.ndarray) -> None:
        """Write the archive. images: uint8 `[N, H, W, C]`, all samples."""
        with atomic_write(self.archive) as partial, open(partial, "wb") as file:
            # without time stamps, so equal images give equal files
            np.savez(file, **{"arr_0": images, **self.beside()})
