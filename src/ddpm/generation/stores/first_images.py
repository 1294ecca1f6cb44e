"""A store that keeps only the first images, for their grid."""

from collections.abc import Iterator

import numpy as np

from ddpm.generation.stores.base import ImageStore
from ddpm.generation.stores.row_file import RowFile


class FirstImages(ImageStore):
    """Images are kept until the grid is drawn. A killed generation starts again."""

    NUM_FIRST = 400
    continues, grows = False, False

    @property
    def rows(self) -> RowFile:
        return RowFile(self.folder / ".first.rows", self.num_first, self.shape)

    def stored(self) -> Iterator[tuple[int, bytes]]:
        return iter(())

    def begin(self) -> None:
        self.rows.path.unlink(missing_ok=True)
        self.rows.create()

    def write(self, number: int, image: np.ndarray) -> None:
        if number < self.rows.num_rows:
            self.rows.write(number, image)

    def finish(self) -> np.ndarray:
        first = self.rows.images().copy()
        self.rows.path.unlink()
        return first
