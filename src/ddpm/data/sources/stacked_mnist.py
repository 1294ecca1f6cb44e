"""StackedMNIST: three digits as the red, green and blue channel of one image, with 1,000 modes from 000 to 999.

Metz et al. 2017 made it to count the modes that a generator misses; Lin et al. 2018 (PacGAN) compare figures of it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.memory import require_memory
from ddpm.base.rng import Rng
from ddpm.data.sources.base import Images, Source, sha256_of_parts

NUM_BYTES = 100  # of the drawn numbers of an image


@dataclass(frozen=True)
class StackedMnist(check.Checked):
    """of: grey images of one size, labelled 0 to 9. Each channel of an image is one of them, drawn uniformly.

    The three digits of image i are a function of i alone, so more images only add to fewer.
    """

    of: Source
    num_images: check.PositiveInt

    def open(self) -> "StackedImages":
        require_memory(NUM_BYTES * self.num_images, f"data.source.num_images={self.num_images}")
        digits = self.of.open()
        least, largest = int(digits.labels.min()), int(digits.labels.max())
        if least < 0 or largest > 9:
            check.fail("data.source.of", f"labels {least} to {largest}", "images of digits with labels in 0..9")
        draws = Rng(0, "stacked_mnist").at(0, torch.arange(self.num_images))
        channels = [draws.integers(channel, len(digits)) for channel in ("red", "green", "blue")]
        numbers = torch.stack(channels, dim=1)
        labels = digits.labels[numbers] @ torch.tensor([100, 10, 1])
        return StackedImages(digits, numbers, labels)


@dataclass(frozen=True)
class StackedImages:
    """numbers: int64 `[N, 3]`, of the digit in each channel. An image is put together when it is asked for."""

    digits: Images
    numbers: Tensor
    labels: Tensor
    class_names = tuple(f"{number:03d}" for number in range(1000))

    def __len__(self) -> int:
        return len(self.numbers)

    def image(self, index: int) -> np.ndarray:
        return np.dstack([np.asarray(self.digits.image(number)) for number in self.numbers[index].tolist()])

    def name(self, index: int) -> str:
        return f"stacked_mnist image {index}"

    def fingerprint(self) -> str:
        return sha256_of_parts([self.digits.fingerprint(), self.numbers.numpy().tobytes()])
