"""One PNG an image: images/NUMBER.png."""

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpm.atomic import sweep
from ddpm.training.stores.base import ImageStore, save_png


class PngFolder(ImageStore):
    """A file's name depends on its number alone, with six digits or more, so that a folder can grow."""

    continues, grows = True, True

    @property
    def images(self) -> Path:
        return self.folder / "images"

    def path(self, number: int) -> Path:
        return self.images / f"{number:06d}.png"

    def there(self) -> Tensor:
        names = set(os.listdir(self.images)) if self.images.exists() else set()
        return torch.tensor([self.path(number).name in names for number in range(self.num_samples)])

    def begin(self) -> None:
        self.images.mkdir(exist_ok=True)
        sweep(self.images)

    def write(self, number: int, image: np.ndarray) -> None:
        save_png(self.path(number), image)

    def finish(self) -> np.ndarray:
        sweep(self.images)
        first = [np.asarray(Image.open(self.path(number))) for number in range(self.num_first)]
        return np.stack(first).reshape(self.num_first, *self.shape)
