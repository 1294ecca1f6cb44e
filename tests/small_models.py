"""Models that are trained for a moment, the images that they are of, and features that cost nothing."""

import numpy as np
import torch
from small_runs import SMALL, configured

from ddpm.commands import train
from ddpm.data.sources.digits import Digits

QUICK = (*(each for each in SMALL if not each.startswith("callbacks.")), "~callbacks.samples", "~callbacks.denoising")
"""`SMALL`, without a picture while it trains."""


def trained(folder, *overrides):
    """The checkpoint of a run of two steps in folder/run."""
    train.run_train(configured("train", folder / "run", *QUICK, "trainer.max_steps=2", *overrides))
    return folder / "run" / "checkpoints" / "last.ckpt"


def digits(*numbers):
    """Images of data=digits in [-1, 1], `[N, 1, 8, 8]`."""
    images = Digits().open()
    return np.stack([images.image(number) for number in numbers]).reshape(-1, 1, 8, 8) / 127.5 - 1


class Quarters:
    """The means of an image's quarters as features, and ten sums of them as class scores."""

    dims = {"pooled": 4, "logits": 10}  # noqa: RUF012
    preprocessing, name, weights_hash = "uint8", "quarters", "0" * 64

    def __init__(self):
        self.num_seen = 0

    def to(self, device):
        return self

    def __call__(self, pixels, layers):
        self.num_seen += len(pixels)
        means = torch.nn.functional.adaptive_avg_pool2d(pixels[:, :1].double() / 255, 2).flatten(1)
        mixed = means @ torch.randn(4, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        features = {"pooled": means.float(), "logits": mixed.float()}
        return {layer: features[layer] for layer in layers}
