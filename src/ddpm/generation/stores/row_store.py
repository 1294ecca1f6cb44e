"""The store of evaluate.py: images in one file, of which an evaluation reads as many as it needs."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ddpm.generation.stores.base import ImageStore
from ddpm.generation.stores.row_file import RowFile


class RowStore(ImageStore):
    """The file images.rows. Only the requested images are read."""

    continues, grows = True, True

    @property
    def rows(self) -> RowFile:
        return RowFile(self.folder / "images.rows", self.num_samples, self.shape)

    def stored(self) -> Iterator[tuple[int, bytes]]:
        return self.rows.written()

    def begin(self) -> None:
        self.rows.create()
        self.adopt()

    def write(self, number: int, image: np.ndarray) -> None:
        self.seal(number, image.tobytes())
        self.rows.write(number, image)

    def finish(self) -> np.ndarray:
        return self.rows.images()[: self.num_first].copy()

    def read(self, plan: list[Tensor]) -> Iterator[Tensor]:
        """For each int64 `[B]` of sample numbers in `plan`, uint8 `[B, C, H, W]`."""
        images = self.rows.images()
        return (torch.from_numpy(images[ids.numpy()]).permute(0, 3, 1, 2) for ids in plan)
