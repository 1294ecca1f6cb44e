"""Train the classifier of features=cifar10: python tools/train_cifar_features.py TRAIN TEST [FILE]

TRAIN and TEST are the two splits of CIFAR-10 in Parquet: a file, a folder or a pattern each. The network is trained on
all of TRAIN with random flips and shifts. TEST is only used to measure it. It takes about 25 minutes on one thread.

MKL rounds by the alignment of memory, so two trainings can differ. With MKL_CBWR=COMPATIBLE in the environment, the
same version of torch on the same processor writes the same file each time.
"""

import sys
import time
from pathlib import Path

import torch
from classifier_training import store, train
from torch import Tensor, nn

from ddpm.data.decode import Decoder
from ddpm.data.images import Preparation
from ddpm.data.sources.parquet import Parquet
from ddpm.metrics.extractors.cifar10 import FILE, SIZE, Cifar10Classifier, Cifar10Network

NUM_EPOCHS = 24
BATCH_SIZE = 128
PEAK_LR = 4e-3
MAX_SHIFT = 2


def pictures(path: str) -> tuple[Tensor, Tensor]:
    """uint8 `[N, 3, 32, 32]`, and int64 `[N]` in 0..9."""
    images = Parquet(path).open()
    classes = images.labels.unique().tolist()
    if classes != list(range(10)):
        raise ValueError(f"{path} must have the ten classes 0 to 9 of CIFAR-10, got {classes}; give its Parquet files")
    pixels, problems = Decoder(images, Preparation(3, (SIZE, SIZE))).decoded(list(range(len(images))))
    if problems:
        raise ValueError(problems[0].message)
    return pixels, images.labels


def moved(pixels: Tensor, make: torch.Generator) -> Tensor:
    """Images mirrored and shifted by up to 2 pixels at random; the margin reflects them."""
    n = len(pixels)
    images = Cifar10Classifier.prepare(pixels)
    mirrored = torch.where(torch.rand(n, 1, 1, 1, generator=make) < 0.5, images.flip(3), images)
    padded = nn.functional.pad(mirrored, (MAX_SHIFT,) * 4, "reflect").permute(0, 2, 3, 1)
    rows, columns = torch.randint(2 * MAX_SHIFT + 1, (2, n, 1), generator=make) + torch.arange(SIZE)
    return padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def main() -> None:
    torch.set_num_threads(1)
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    path = Path(sys.argv[3]) if len(sys.argv) == 4 else FILE
    start = time.perf_counter()
    (images, labels), (test_images, test_labels) = (pictures(split) for split in sys.argv[1:3])
    network = train(Cifar10Network, images, labels, moved, NUM_EPOCHS, BATCH_SIZE, PEAK_LR)
    about = f"CIFAR-10: {len(images):,} training images trained on, {len(test_images):,} test images held out"
    store(network, path, about, Cifar10Classifier.prepare(test_images), test_labels, torch.float16)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
