"""What a map of anomalies is worth without a network: maps from the mean and variance of each pixel in training."""

import torch
from torch import Tensor

from ddpm.data.anomalies.base import AnomalySet
from ddpm.data.datamodule import ImageData
from ddpm.diffusion.anomaly_map import squared_error_map

FLOOR = (8 / 127.5) ** 2
"""Added to a pixel's variance, that of 8 of 255 levels, since a pixel that never changed would rule the whole map."""


def baselines(training: ImageData, found: AnomalySet) -> dict[str, Tensor]:
    """Maps `[N, H, W]`: the squared distance to the mean of the training images, and the same over each variance."""
    mean, variance = moments(training)
    images = found.images.double() / 127.5 - 1
    distance = squared_error_map(images, mean)
    scaled = ((images - mean).square() / (variance + FLOOR)).mean(1)
    return {"distance to the training mean": distance, "per-pixel Gaussian": scaled}


def moments(training: ImageData) -> tuple[Tensor, Tensor]:
    """float64 `[C, H, W]` of pixels in [-1, 1]."""
    total, squares, num = 0.0, 0.0, 0
    for images in training.batches(256):
        images = images.double()
        total, squares, num = total + images.sum(0), squares + images.square().sum(0), num + len(images)
    mean = torch.as_tensor(total) / num
    return mean, (torch.as_tensor(squares) / num - mean.square()).clamp(min=0)
