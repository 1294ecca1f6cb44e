"""A small classifier of handwritten digits, included in the package, for metrics of MNIST without a download.

tools/train_mnist_features.py trains it on the embedded digits, holds out 1,000 of them, and prints its accuracy.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from ddpm.metrics.extractors.classifier import SPATIAL_CHANNELS, ShippedClassifier, SmallNetwork, convolution
from ddpm.metrics.extractors.preprocess import resize

SIZE = 28
FILE = Path(__file__).with_name("mnist.safetensors")


class MnistNetwork(SmallNetwork):
    """Maps grey `[B, 1, 28, 28]` in [0, 1] to three layers."""

    def __init__(self) -> None:
        super().__init__(
            fine=nn.Sequential(convolution(1, 32), convolution(32, 32, stride=2)),  # 14 x 14
            coarse=nn.Sequential(convolution(32, 64), convolution(64, 64, stride=2)),  # 7 x 7
            top=nn.Sequential(convolution(64, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            width=64,
        )


class MnistClassifier(ShippedClassifier):
    kind, file, network = "mnist", FILE, MnistNetwork
    dims: ClassVar[Mapping[str, int]] = {"pooled": 64, "logits": 10, "spatial": SPATIAL_CHANNELS * 7 * 7}
    preprocessing = "uint8, mean of the channels, bilinear 28 with antialias where the size is another"

    @staticmethod
    def prepare(pixels: Tensor) -> Tensor:
        """To float32 `[B, 1, 28, 28]` in [0, 1]."""
        grey = pixels.float().mean(1, keepdim=True) / 255
        return resize(grey, SIZE, "bilinear")

    @staticmethod
    def prepare_floats(images: Tensor) -> Tensor:
        grey = (images.float().mean(1, keepdim=True) + 1) / 2
        return resize(grey, SIZE, "bilinear")
