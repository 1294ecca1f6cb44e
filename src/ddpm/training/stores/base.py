"""What every store of generated images can do: say which are there, take more, and finish."""

import io
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image
from torch import Tensor

from ddpm.atomic import whole


class ImageStore(ABC):
    """Holds the samples 0..num_samples-1 in `folder`; image_shape: `(C, H, W)`.

    Processes write different samples at once. What is there is whole whenever they are killed; a power cut is another
    matter, since nothing waits for the disk.
    """

    NUM_FIRST = 64  # of which a picture is drawn
    continues: ClassVar[bool]  # whether what a killed process wrote is kept
    grows: ClassVar[bool]  # whether a finished one takes further samples

    def __init__(self, folder: Path, num_samples: int, image_shape: tuple[int, int, int]) -> None:
        self.folder, self.num_samples = folder, num_samples
        channels, height, width = image_shape
        self.shape = (height, width, channels)
        self.num_first = min(self.NUM_FIRST, num_samples)

    @abstractmethod
    def there(self) -> Tensor:
        """bool `[num_samples]`, which samples need not be made again. Reads only, and before `begin` too."""

    @abstractmethod
    def begin(self) -> None:
        """On one process, before any writes."""

    @abstractmethod
    def write(self, number: int, image: np.ndarray) -> None:
        """image: uint8 `[H, W, C]`. One that is there already is replaced."""

    @abstractmethod
    def finish(self) -> np.ndarray:
        """On one process, once all samples are there. Returns the first, uint8 `[num_first, H, W, C]`."""


def save_png(path: Path, image: np.ndarray) -> None:
    """image: uint8 `[H, W, 1 or 3]`. Encoded in memory, since Pillow's errors of writing do not name a full disk."""
    encoded = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(encoded, "PNG")
    with whole(path) as partial:
        partial.write_bytes(encoded.getvalue())
