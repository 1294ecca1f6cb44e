"""The 1,797 handwritten digits of 8 x 8 pixels in scikit-learn. Alpaydin and Kaynak 1998 (UCI optdigits)."""

from dataclasses import dataclass

import numpy as np
import torch

from ddpm.data.sources.base import ArrayImages


@dataclass(frozen=True)
class Digits:
    def open(self) -> ArrayImages:
        from sklearn.datasets import load_digits  # takes a second to import

        data = load_digits()
        pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)  # 0..16 to 0..255
        return ArrayImages("digits", pixels, torch.from_numpy(data.target.astype(np.int64)), tuple("0123456789"))
