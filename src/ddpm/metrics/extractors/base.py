"""What a score needs to know of a network, and arithmetic that is the same whatever training has switched on."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, Self

import torch
from torch import Tensor


class Extractor(Protocol):
    """`dims` names its layers and their widths, e.g. `{"pooled": 2048}`.

    "pooled": what distances are measured in; "logits": class scores; "spatial": features that know where things are.
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

    def __call__(self, pixels: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """uint8 `[B, 3, H, W]` to float32 `[B, dims[layer]]` for each of `layers`."""
        ...


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
