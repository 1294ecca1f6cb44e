"""An array on disk that several processes can fill, with a flag for each complete row."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np


class RowFile:
    """uint8 rows of one shape, each followed by a byte that is set once the row is written.

    It is written by system calls, because writing through a memory map on a full disk kills the process.
    """

    def __init__(self, path: Path, num_rows: int, shape: tuple[int, ...]) -> None:
        self.path, self.num_rows = path, num_rows
        self.row = np.dtype([("image", np.uint8, shape), ("whole", np.uint8)])

    def create(self) -> None:
        """Create the file with empty rows, or extend an existing one that has fewer rows.

        One system call sets the size, so there is no incomplete state.
        """
        with open(self.path, "ab") as file:
            file.truncate(max(file.tell(), self.num_rows * self.row.itemsize))

    def images(self) -> np.ndarray:
        """All rows, uint8 `[num_rows, *shape]`, memory-mapped. Every row must be complete."""
        return np.memmap(self.path, self.row, "r", shape=(self.num_rows,))["image"]

    def written(self) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of each complete row, also beyond num_rows."""
        if self.path.exists():
            with open(self.path, "rb") as file:
                for number, row in enumerate(iter(lambda: file.read(self.row.itemsize), b"")):
                    if row[self.row.itemsize - 1 :] == b"\1":
                        yield number, row[:-1]

    def write(self, number: int, image: np.ndarray) -> None:
        with open(self.path, "r+b", buffering=0) as file:
            put(file.fileno(), b"\0", self.mark(number))
            put(file.fileno(), image.tobytes(), number * self.row.itemsize)
            put(file.fileno(), b"\1", self.mark(number))

    def mark(self, number: int) -> int:
        """Offset of the byte that flags a complete row."""
        return (number + 1) * self.row.itemsize - 1


def put(file: int, data: bytes, place: int) -> None:
    """Write all of `data` at offset `place`. A write may be partial on a nearly full disk; the next one then raises."""
    while data:
        written = os.pwrite(file, data, place)
        data, place = data[written:], place + written
