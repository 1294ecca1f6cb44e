"""The interface of feature extractors, and float32 arithmetic that does not depend on settings of the training."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Protocol, Self, final

import torch
from torch import Tensor, nn

from ddpm.metrics.weights import WeightsFile


class Extractor(Protocol):
    """`dims` names its layers and their widths, e.g. `{"pooled": 2048}`.

    "pooled": features for distances; "logits": class scores; "spatial": features with positions.
    `name` is part of the names of metrics, so networks with different outputs must have different names.
    """

    @property
    def dims(self) -> Mapping[str, int]: ...

    @property
    def preprocessing(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def weights_hash(self) -> str: ...

    def to(self, device: torch.device | str) -> Self: ...

    def __call__(self, pixels: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """uint8 `[B, 3, H, W]` to float32 `[B, dims[layer]]` for each of `layers`."""
        ...


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Full float32 precision: disables autocast, TF32 and bfloat16, whatever the training has enabled.

    By default, CUDA convolutions round their inputs to TF32's 10 bits, and features would depend on the hardware.
    """
    backends = [
        torch.backends.cudnn.conv,
        torch.backends.cuda.matmul,
        torch.backends.mkldnn.conv,
        torch.backends.mkldnn.matmul,
    ]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


class NetworkExtractor(ABC):
    """An `Extractor` that consists of one torch network. Subclasses add `dims` and `preprocessing`.

    The network is loaded at the first use or by `to`, not by the constructor, so that a configuration can be built
    without the weights. kind: the name for the published weights; for others, the first digits of their hash are
    appended.
    """

    def __init__(self, kind: str, file: WeightsFile) -> None:
        self._device = torch.device("cpu")
        self._kind, self._file = kind, file

    @abstractmethod
    def _build(self, tensors: dict[str, Tensor]) -> nn.Module:
        """The network with its weights."""

    @abstractmethod
    def _features(self, network: nn.Module, pixels: Tensor) -> Mapping[str, Tensor]:
        """uint8 `[B, 3, H, W]` to `[B, dims[layer]]` for every layer."""

    @property
    def name(self) -> str:
        usual = self._file.published is None or self._file.is_published(self.weights_hash)
        return self._kind if usual else f"{self._kind}-{self.weights_hash[:8]}"

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
        tensors, sha256 = self._file.load()
        return self._build(tensors).eval().requires_grad_(False).to(self._device), sha256
