"""Small classifiers that are shipped with the package, as features that need no download."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from ddpm.metrics.extractors.base import NetworkExtractor
from ddpm.metrics.weights import WeightsFile, load_exact

NUM_CLASSES = 10
SPATIAL_CHANNELS = 4


class SmallNetwork(nn.Module):
    """Prepared images to the three layers. fine, coarse: each halves the resolution; the first channels of the second
    are "spatial". top: the rest, to `[B, width]`."""

    def __init__(self, fine: nn.Module, coarse: nn.Module, top: nn.Module, width: int) -> None:
        super().__init__()
        self.fine, self.coarse, self.top = fine, coarse, top
        self.classify = nn.Linear(width, NUM_CLASSES)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        seen = self.coarse(self.fine(x))
        pooled = self.top(seen)
        return {"pooled": pooled, "logits": self.classify(pooled), "spatial": seen[:, :SPATIAL_CHANNELS].flatten(1)}


def convolution(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    """3 x 3. The activation is smooth, so that no feature is constant."""
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.SiLU())


class ShippedClassifier(NetworkExtractor):
    """A leaf names the network and the file of its weights, and adds `dims`, `preprocessing` and `prepare`.

    The distances compare models of one data set with each other, and with no figure that was made with Inception.
    """

    kind: ClassVar[str]
    file: ClassVar[Path]
    network: ClassVar[type[nn.Module]]

    def __init__(self) -> None:
        super().__init__(self.kind, WeightsFile(self.file))

    @staticmethod
    @abstractmethod
    def prepare(pixels: Tensor) -> Tensor:
        """uint8 `[B, 3, H, W]` to the input of the network, float32."""

    @staticmethod
    @abstractmethod
    def prepare_floats(images: Tensor) -> Tensor:
        """Images `[B, C, H, W]` in [-1, 1] to the input of the network, differentiable."""

    def maps(self) -> nn.Module:
        """For a perceptual distance: images `[B, C, H, W]` in [-1, 1] to feature maps, differentiable and frozen."""
        return FeatureMaps(self._network[0], self.prepare_floats)

    def _build(self, tensors: dict[str, Tensor]) -> nn.Module:
        network = self.network()
        load_exact(network, tensors, self.file, f"the classifier of features={self.kind}")
        return network

    def _features(self, network: nn.Module, pixels: Tensor) -> Mapping[str, Tensor]:
        return network(self.prepare(pixels))


class FeatureMaps(nn.Module):
    """The outputs of both stages of a network, at a half and a quarter of its resolution."""

    def __init__(self, network: SmallNetwork, prepare: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.prepare = network, prepare

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.network.fine(self.prepare(images))
        return [fine, self.network.coarse(fine)]
