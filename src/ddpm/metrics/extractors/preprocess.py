"""Preprocessing: from 8-bit pixels of any size to the input of a network."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

PIXELS = "pixels"
SIDE = 32
NUM_PIXEL_FEATURES = 3 * SIDE * SIDE
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def resize(pixels: Tensor, size: int, mode: str) -> Tensor:
    """`[B, C, H, W]` to float32 `[B, C, size, size]` in the same range, antialiased; unchanged if the size is equal.

    mode: bilinear, or bicubic, which overshoots slightly. Images that are not square are stretched, not cropped.
    """
    x = pixels.float()
    if x.shape[2:] == (size, size):
        return x
    return nn.functional.interpolate(x, size=(size, size), mode=mode, antialias=True)


def normalize(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x / 255 - mean) / std for x in 0..255. mean, std: of three channels, in units of 0..1."""
    mean, std = (torch.tensor(values, device=x.device).view(-1, 1, 1) for values in (mean, std))
    return (x / 255 - mean) / std


def pixel_features(pixels: Tensor) -> Tensor:
    """The layer "pixels": uint8 `[B, 3, H, W]` to float32 `[B, 3072]` in [0, 1], for distances between the images.

    Sides longer than 32 are reduced to 32 by averaging, and shorter ones are padded with zeros, so that distances up to
    32 x 32 are those of the original images.
    """
    small = nn.functional.adaptive_avg_pool2d(pixels.float() / 255, tuple(min(side, SIDE) for side in pixels.shape[2:]))
    height, width = small.shape[2:]
    return nn.functional.pad(small, (0, SIDE - width, 0, SIDE - height)).flatten(1)
