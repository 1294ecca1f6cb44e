"""An array on disk that several processes fill, and that knows which of its rows are whole."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np


class RowFile:
    """uint8 rows of one shape, each followed by a byte that is set once the row is written.

    Filled by system calls and not through a memory map: on a full disk a map ends the process without a word.
    """

    def __init__(self, path: Path, num_rows: int, shape: tuple[int, ...]) -> None:
        self.path, self.num_rows = path, num_rows
        self.row = np.dtype([("image", np.uint8, shape), ("whole", np.uint8)])

    def create(self) -> None:
        """All rows empty, unless the file is there; one of fewer rows grows, one of more stays as it is.

        One system call gives it its size, so it is never half made.
        """
        with open(self.path, "ab") as file:
            file.truncate(max(file.tell(), self.num_rows * self.row.itemsize))

    def images(self) -> np.ndarray:
        """uint8 `[num_rows, *shape]`, all of them whole, read from the disk as they are used."""
        return np.memmap(self.path, self.row, "r", shape=(self.num_rows,))["image"]

    def written(self) -> Iterator[tuple[int, bytes]]:
        """Each whole row by its number, also those beyond num_rows."""
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
        """The place of the byte that says whether a row is whole."""
        return (number + 1) * self.row.itemsize - 1


def put(file: int, data: bytes, place: int) -> None:
    """All of `data` at byte `place`. Where a disk is nearly full a write is cut short, and the next says why."""
    while data:
        written = os.pwrite(file, data, place)
        data, place = data[written:], place + written
