"""What extractors share that are a torch network and nothing more."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Self, final

import torch
from torch import Tensor, nn

from ddpm.metrics.extractors.base import full_float32


class NetworkExtractor(ABC):
    """An `Extractor` whose network is loaded at the first use or by `to`, not when the object is made, so that a
    configuration can be built without the weights. A leaf adds `dims`, `preprocessing` and `name`."""

    def __init__(self) -> None:
        self._device = torch.device("cpu")

    @abstractmethod
    def _load(self) -> tuple[nn.Module, str]:
        """The network, and the sha256 of its weights."""

    @abstractmethod
    def _features(self, network: nn.Module, pixels: Tensor) -> Mapping[str, Tensor]:
        """uint8 `[B, 3, H, W]` to `[B, dims[layer]]` for every layer."""

    @property
    def weights_hash(self) -> str:
        return self._network[1]

    def to(self, device: torch.device | str) -> Self:
        self._device = torch.device(device)
        self._network[0].to(self._device)
        return self

    @final
    @torch.inference_mode()
    def __call__(self, pixels: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        with full_float32(pixels.device):
            found = self._features(self._network[0], pixels)
        return {layer: found[layer].float() for layer in layers}

    @cached_property
    def _network(self) -> tuple[nn.Module, str]:
        network, sha256 = self._load()
        return network.eval().requires_grad_(False).to(self._device), sha256
