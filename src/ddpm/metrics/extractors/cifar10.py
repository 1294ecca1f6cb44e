"""A small classifier of CIFAR-10, shipped with the package: metrics of small colour pictures without a download.

tools/train_cifar_features.py made it from the 50,000 training images, and prints what it can do on the test images.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from ddpm.metrics.extractors.classifier import SPATIAL_CHANNELS, ShippedClassifier, SmallNetwork, convolution
from ddpm.metrics.extractors.preprocess import resize

SIZE = 32
FILE = Path(__file__).with_name("cifar10.safetensors")


class Residual(nn.Module):
    """A residual block (He et al. 2016) of two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(convolution(channels, channels), convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Cifar10Network(SmallNetwork):
    """RGB `[B, 3, 32, 32]` in [-1, 1] to the three layers."""

    def __init__(self) -> None:
        super().__init__(
            fine=nn.Sequential(convolution(3, 32, stride=2), Residual(32)),  # 16 x 16
            coarse=nn.Sequential(convolution(32, 64, stride=2), Residual(64)),  # 8 x 8
            top=nn.Sequential(convolution(64, 128, stride=2), Residual(128), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            width=128,
        )


class Cifar10Classifier(ShippedClassifier):
    """The file holds float16 numbers, and the network computes in float32."""

    kind, file, network = "cifar10", FILE, Cifar10Network
    dims: ClassVar[Mapping[str, int]] = {"pooled": 128, "logits": 10, "spatial": SPATIAL_CHANNELS * 8 * 8}
    preprocessing = "uint8 / 127.5 - 1, bilinear 32 with antialias where the size is another"

    @staticmethod
    def prepare(pixels: Tensor) -> Tensor:
        """To float32 `[B, 3, 32, 32]` in [-1, 1]."""
        return resize(pixels, SIZE, "bilinear") / 127.5 - 1

    @staticmethod
    def prepare_floats(images: Tensor) -> Tensor:
        return resize(images.float().expand(-1, 3, -1, -1), SIZE, "bilinear")
