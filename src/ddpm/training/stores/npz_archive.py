"""All images in samples.npz: `arr_0`, uint8 `[N, H, W, C]`, the layout of guided diffusion's evaluations."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddpm.atomic import whole
from ddpm.training.stores.base import ImageStore
from ddpm.training.stores.row_file import RowFile


class NpzArchive(ImageStore):
    """Rows of a working file until all are there; the archive is made of them at the end, and does not grow."""

    continues, grows = True, False

    @property
    def archive(self) -> Path:
        return self.folder / "samples.npz"

    @property
    def rows(self) -> RowFile:
        return RowFile(self.folder / ".samples.rows", self.num_samples, self.shape)

    def there(self) -> Tensor:
        if self.archive.exists():
            return torch.ones(self.num_samples, dtype=torch.bool)
        return torch.from_numpy(self.rows.whole())

    def begin(self) -> None:
        if not self.archive.exists():
            self.rows.create()

    def write(self, number: int, image: np.ndarray) -> None:
        self.rows.write(number, image)

    def finish(self) -> np.ndarray:
        if not self.archive.exists():
            with whole(self.archive) as partial, open(partial, "wb") as file:
                np.savez(file, self.rows.images())  # its entries carry no time, so equal rows make equal files
        self.rows.path.unlink(missing_ok=True)
        return first_of_archive(self.archive, self.num_first)


def first_of_archive(path: Path, num: int) -> np.ndarray:
    """The first rows of `arr_0`, without reading the others as numpy would."""
    with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        row = np.dtype((dtype, shape[1:]))
        return np.frombuffer(bytearray(file.read(num * row.itemsize)), dtype).reshape(num, *shape[1:])
