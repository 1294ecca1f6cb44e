"""Train the classifier of features=mnist: python tools/train_mnist_features.py [FILE]

It is trained on 4,000 of the 5,000 bundled digits with random shifts, rotations and scales. The other 1,000 digits,
which data.num_val=1000 holds out, are not used, so that comparisons with held-out digits are valid. One thread and one
seed give the same file each time with the same version of torch.
"""

import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from classifier_training import store, train
from torch import Tensor, nn

from ddpm.data.order import choose_subset
from ddpm.data.sources.mnist import Mnist
from ddpm.metrics.extractors.mnist import FILE, MnistNetwork

NUM_HELD_OUT = 1000
NUM_EPOCHS = 40
BATCH_SIZE = 64
PEAK_LR = 3e-3


def digits() -> tuple[Tensor, Tensor]:
    """float32 `[5000, 1, 28, 28]` in [0, 1], and int64 `[5000]`."""
    images = Mnist().open()
    pixels = torch.from_numpy(np.stack([images.image(k) for k in range(len(images))]).reshape(-1, 1, 28, 28))
    return pixels.float() / 255, images.labels


def moved(images: Tensor, make: torch.Generator) -> Tensor:
    """Images rotated by up to 12 degrees, scaled by 0.88..1.12, and shifted by up to 2 pixels, at random."""
    n = len(images)
    turn, scale = (2 * torch.rand(2, n, generator=make) - 1) * torch.tensor([[math.radians(12)], [0.12]])
    shift = (2 * torch.rand(n, 2, 1, generator=make) - 1) * 2 / 14
    rotation = torch.stack([torch.stack([turn.cos(), -turn.sin()], 1), torch.stack([turn.sin(), turn.cos()], 1)], 1)
    grid = nn.functional.affine_grid(torch.cat([(1 + scale)[:, None, None] * rotation, shift], 2), images.shape, False)
    return nn.functional.grid_sample(images, grid, align_corners=False)


def main() -> None:
    torch.set_num_threads(1)
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    start = time.perf_counter()
    images, labels = digits()
    held_out = torch.zeros(len(images), dtype=torch.bool)
    held_out[choose_subset(len(images), NUM_HELD_OUT)] = True
    network = train(MnistNetwork, images[~held_out], labels[~held_out], moved, NUM_EPOCHS, BATCH_SIZE, PEAK_LR)
    about = "digits of MNIST: 4,000 trained on, 1,000 held out"
    store(network, path, about, images[held_out], labels[held_out])
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
