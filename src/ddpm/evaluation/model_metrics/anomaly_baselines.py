"""Baselines of anomaly maps without a network: distances from the mean of the training images, or the nearest one."""

import torch
from torch import Tensor

from ddpm.data.anomalies.base import AnomalySet
from ddpm.data.datamodule import ImageData
from ddpm.diffusion.samplers.restoration import squared_error_map

FLOOR = (8 / 127.5) ** 2
"""Added to a pixel's variance: 8 of 255 levels, squared. Otherwise constant pixels would dominate the map."""


def baselines(training: ImageData, found: AnomalySet) -> dict[str, Tensor]:
    """Maps `[N, H, W]` of squared distances: to the mean of the training images, the same divided by the variance of
    each pixel, and to the nearest training image."""
    mean, variance = moments(training)
    images = found.images.double() / 127.5 - 1
    distance = squared_error_map(images, mean)
    scaled = ((images - mean).square() / (variance + FLOOR)).mean(1)
    return {
        "distance to the training mean": distance,
        "per-pixel Gaussian": scaled,
        "nearest training image": squared_error_map(images.float(), nearest_image_map(training, images.float())),
    }


def moments(training: ImageData) -> tuple[Tensor, Tensor]:
    """Mean and variance of each pixel in [-1, 1], float64 `[C, H, W]`."""
    total, squares, num = 0.0, 0.0, 0
    for images in training.batches(256):
        images = images.double()
        total, squares, num = total + images.sum(0), squares + images.square().sum(0), num + len(images)
    mean = torch.as_tensor(total) / num
    return mean, (torch.as_tensor(squares) / num - mean.square()).clamp(min=0)


def nearest_image_map(training: ImageData, images: Tensor) -> Tensor:
    """The nearest training image of each of `images`, `[N, C, H, W]`."""
    found, least = torch.zeros_like(images), torch.full((len(images),), torch.inf)
    for batch in training.batches(256):
        distances, rows = torch.cdist(images.flatten(1), batch.flatten(1)).min(1)
        closer = distances < least
        found[closer], least[closer] = batch[rows[closer]], distances[closer]
    return found
