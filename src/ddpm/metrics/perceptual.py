"""Perceptual distances of two images, to train with: LPIPS, and the features of a classifier of this project."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.functional.image.lpips import _NoTrainLpips

from ddpm.base import check
from ddpm.metrics.extractors.cifar10 import Cifar10Classifier
from ddpm.metrics.extractors.mnist import MnistClassifier
from ddpm.metrics.weights import Published, WeightsFile, load_exact

VGG16 = Published(
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    file="vgg16-397923af.pth",
    sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    megabytes=528,
)
"""torchvision's, trained on ImageNet. torchmetrics has the five small layers that Zhang et al. trained on top of it."""
EXTRACTORS = {"mnist": MnistClassifier, "cifar10": Cifar10Classifier}


class LPIPS(nn.Module):
    """`distance(x, y) -> [B]` of images `[B, 1 or 3, H, W]` in [-1, 1] (Zhang et al. 2018), with VGG-16 as in the
    authors' first stages. There its dropout was on during training; here it never is.

    weights: a local file of torchvision's VGG-16, or None for the published one (torch hub's cache, else a download).
    sha256: what the local file must have, None: anything. ValueError if there are no weights.
    """

    def __init__(self, weights: str | Path | None = None, sha256: str | None = None) -> None:
        super().__init__()
        file = WeightsFile.choose(weights, sha256, VGG16, field="perceptual")
        read = file.load()
        self.weights_hash = read.sha256
        tensors = {key: value.float() for key, value in read.tensors.items() if key.startswith("features.")}
        self.network = _NoTrainLpips(net="vgg", pnet_rand=True)  # no download by torchmetrics
        names = {f"features.{name.split('.', 1)[1]}": name for name in self.network.net.state_dict()}
        renamed = {names.get(key, key): value for key, value in tensors.items()}
        load_exact(self.network.net, renamed, file.source, "torchvision's VGG-16", field="perceptual")
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> "LPIPS":
        return super().train(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.network(*(each.expand(-1, 3, -1, -1) for each in (x, y))).flatten()


class FeatureDistance(nn.Module):
    """`distance(x, y) -> [B]` of images `[B, 1 or 3, H, W]` in [-1, 1]: LPIPS with a small classifier of this project.

    The squared distance of its feature maps, each of unit length over the channels at each pixel, as a mean over pixels
    and a sum over maps; no weights were trained for it. extractor: the name of the classifier.
    """

    def __init__(self, extractor: str) -> None:
        super().__init__()
        self.maps = EXTRACTORS[check.one_of("extractor", extractor, EXTRACTORS)]().maps()

    def train(self, mode: bool = True) -> "FeatureDistance":
        return super().train(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        pairs = zip(self.maps(x), self.maps(y), strict=True)
        return torch.stack([squared_distance(*pair) for pair in pairs]).sum(0)


def squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """`[B]`, of feature maps `[B, C, H, W]`."""
    x, y = (nn.functional.normalize(each, dim=1, eps=1e-6) for each in (x, y))
    return (x - y).square().sum(1).mean((1, 2))
