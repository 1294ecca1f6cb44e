"""A small classifier of handwritten digits, included in the package, for metrics of MNIST without a download.

tools/train_mnist_features.py trains it on the embedded digits, holds out 1,000 of them, and prints its accuracy.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from ddpm.metrics.extractors.base import NetworkExtractor
from ddpm.metrics.extractors.preprocess import resize
from ddpm.metrics.weights import WeightsFile, load_exact

SIZE = 28
SPATIAL_CHANNELS = 4
FILE = Path(__file__).with_name("mnist.safetensors")


class MnistNetwork(nn.Module):
    """Maps grey `[B, 1, 28, 28]` in [0, 1] to three layers. Activations are smooth, so that no feature is constant."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(convolution(1, 32), convolution(32, 32, stride=2))  # 14 x 14
        self.coarse = nn.Sequential(convolution(32, 64), convolution(64, 64, stride=2))  # 7 x 7
        self.top = nn.Sequential(convolution(64, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classify = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        seen = self.coarse(self.fine(x))
        pooled = self.top(seen)
        return {"pooled": pooled, "logits": self.classify(pooled), "spatial": seen[:, :SPATIAL_CHANNELS].flatten(1)}


def convolution(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.SiLU())


class MnistClassifier(NetworkExtractor):
    """Its distances compare models of MNIST with each other. They cannot be compared with values of Inception."""

    dims: ClassVar[Mapping[str, int]] = {"pooled": 64, "logits": 10, "spatial": SPATIAL_CHANNELS * 7 * 7}
    preprocessing = "uint8, mean of the channels, bilinear 28 with antialias where the size is another"

    def __init__(self) -> None:
        super().__init__("mnist", WeightsFile(FILE))

    def _build(self, tensors: dict[str, Tensor]) -> nn.Module:
        network = MnistNetwork()
        load_exact(network, tensors, FILE, "the digit classifier")
        return network

    def maps(self) -> nn.Module:
        """For a perceptual distance: images `[B, C, H, W]` in [-1, 1] to feature maps, differentiable and frozen."""
        return MnistMaps(self._network[0])

    def _features(self, network: nn.Module, pixels: Tensor) -> Mapping[str, Tensor]:
        return network(prepare_digits(pixels))


class MnistMaps(nn.Module):
    """The outputs of both stages, 14 x 14 and 7 x 7."""

    def __init__(self, network: MnistNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        grey = (images.float().mean(1, keepdim=True) + 1) / 2
        fine = self.network.fine(resize(grey, SIZE, "bilinear"))
        return [fine, self.network.coarse(fine)]


def prepare_digits(pixels: Tensor) -> Tensor:
    """uint8 `[B, 3, H, W]` to float32 `[B, 1, 28, 28]` in [0, 1]."""
    grey = pixels.float().mean(1, keepdim=True) / 255
    return resize(grey, SIZE, "bilinear")
