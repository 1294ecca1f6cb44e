"""All images of a data set, for process=animorph."""

import torch
from torch import Tensor

from ddpm.data.datamodule import ImageDataModule


def other_images(data: ImageDataModule) -> Tensor:
    """The training images, uint8 `[N, C, H, W]`."""
    data.prepare_data()
    images = data.split("train")
    return torch.cat(list(images.read(list(torch.arange(len(images)).split(1024)))))
