"""Features of StackedMNIST: the classifier of handwritten digits, applied to each channel of an image."""

from collections.abc import Collection, Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

from ddpm.metrics.extractors.mnist import MnistClassifier


class StackedMnistClassifier:
    """Concatenated features of the three channels. "digits": the predicted class of each channel, 0..9."""

    dims: ClassVar[Mapping[str, int]] = {"pooled": 3 * 64, "spatial": 3 * 196, "digits": 3}
    preprocessing = f"each channel as a grey image: {MnistClassifier.preprocessing}"
    name = "stacked_mnist"

    def __init__(self) -> None:
        self._of_channel = MnistClassifier()

    @property
    def weights_hash(self) -> str:
        return self._of_channel.weights_hash

    def to(self, device: torch.device | str) -> Self:
        self._of_channel.to(device)
        return self

    def __call__(self, pixels: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        channels = pixels.flatten(0, 1)[:, None].expand(-1, 3, -1, -1)  # [3 B, 3, H, W]
        found = self._of_channel(channels, MnistClassifier.dims)
        found["digits"] = found["logits"].argmax(1, keepdim=True).float()
        return {layer: found[layer].view(len(pixels), -1) for layer in layers}
