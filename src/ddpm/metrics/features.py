"""Feature extractors: networks that turn 8-bit images into the vectors that every score is computed from."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from ddpm.metrics.weights import STANDARD_SHA256, Weights, check_path, load_weights


class Extractor(Protocol):
    """What a score needs to know of a network. `dims` names its layers and their widths, e.g. `{"pooled": 2048}`.

    `name` becomes part of every metric's name, so two networks that give different numbers must not share it.
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

    def __call__(self, pixels: Tensor) -> dict[str, Tensor]:
        """uint8 `[B, 3, H, W]` to float32 `[B, dims[layer]]` for every layer."""
        ...


class Inception:
    """The Inception of published FID and IS (2015-12-05, TensorFlow's), as torch-fidelity builds it.

    "pooled": the 2048 features of FID. "logits": the 1008 of IS, without bias, as torch-fidelity and the original
    code have them. Images are resized to 299 by TensorFlow 1's bilinear rule, without antialiasing.

    weights: a local file, or None for torch-fidelity's own (torch hub's cache, else a download). They are loaded at
    the first use or by `to`, not when the object is made, so that a configuration can be built without them.
    """

    dims: ClassVar[Mapping[str, int]] = {"pooled": 2048, "logits": 1008}
    preprocessing = "uint8, bilinear 299 without antialias (TensorFlow 1)"
    _layers: ClassVar[Mapping[str, str]] = {"pooled": "2048", "logits": "logits_unbiased"}

    def __init__(self, weights: str | Path | None = None) -> None:
        self._path = check_path(weights)
        self._device = torch.device("cpu")

    @property
    def name(self) -> str:
        """Plain inception for the standard file alone; any other carries the first digits of its hash."""
        return "inception" if self.weights_hash == STANDARD_SHA256 else f"inception-{self.weights_hash[:8]}"

    @property
    def weights_hash(self) -> str:
        return self._network[1]

    def to(self, device: torch.device | str) -> Self:
        self._device = torch.device(device)
        self._network[0].to(self._device)
        return self

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> dict[str, Tensor]:
        network = self._network[0]
        with full_float32(pixels.device):
            return dict(zip(self._layers, network(pixels), strict=True))

    @cached_property
    def _network(self) -> tuple[FeatureExtractorInceptionV3, str]:
        weights = load_weights(self._path)
        # channels_last: 1.4 to 2 times the images/s on CPU, features equal to 4e-7
        network = _build(weights, list(self._layers.values()), self._path).to(memory_format=torch.channels_last)
        return network.to(self._device), weights.sha256


def _build(weights: Weights, layers: list[str], path: Path | None) -> FeatureExtractorInceptionV3:
    """torch-fidelity's network with these tensors.

    Its constructor insists on unpickling a file, so it gets one from memory that was written here a moment ago.
    """
    file = io.BytesIO()
    torch.save(weights.tensors, file)
    file.seek(0)
    try:
        return FeatureExtractorInceptionV3("inception-v3-compat", layers, feature_extractor_weights_path=file)
    except RuntimeError:  # a page of key names
        raise ValueError(
            f"metric.weights: the {len(weights.tensors)} tensors of {path} are not those of the FID Inception; "
            "torchvision's Inception, for one, is another network"
        ) from None


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Float32 that is float32: no autocast, no TF32 and no bfloat16 inside, whatever training has switched on.

    By default CUDA convolutions round their inputs to TF32's 10 bits, so that features would depend on the hardware.
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
