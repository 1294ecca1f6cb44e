"""Features of any torch module that maps [B, 3, size, size] to one or several vectors per image."""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from ddpm.base import check
from ddpm.metrics.extractors.base import full_float32
from ddpm.metrics.extractors.preprocess import normalize, resize
from ddpm.metrics.weights import WeightsFile, load_exact


class Module:
    """network: returns `[B, d]`, the layer "pooled", or a mapping from names of layers to such; the Inception score
    uses "logits", and sFID uses "spatial". The constructor finds their widths by one pass.

    name: part of the names of metrics; networks with different outputs must have different names. weights: a file of
    tensors; None: those of `network`. sha256: required hash of the file; None: any.
    size: images are resized to size x size, bilinear with antialias. mean, std: of three channels in units of 0..1;
    without them the network gets [-1, 1].
    """

    def __init__(
        self,
        network: nn.Module,
        name: str,
        size: int,
        weights: str | Path | None = None,
        sha256: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        if not isinstance(network, nn.Module):
            check.fail("features.network", type(network).__name__, "a torch.nn.Module: give its _target_")
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
            check.fail("features.name", name, "letters, digits, - and .")
        if (mean is None) != (std is None):
            raise ValueError("features.mean and features.std belong together: give both, or none for [-1, 1]")
        self.name, self._size = name, check.positive_int("features.size", size)
        self._mean, self._std = (
            _channels("features.mean", mean or (0.5,) * 3),
            _channels("features.std", std or (0.5,) * 3),
        )
        if min(self._std) <= 0:
            check.fail("features.std", list(self._std), "three numbers greater than 0")
        file = WeightsFile.choose(weights, sha256)
        self._network = network.eval().requires_grad_(False)
        if file.path:
            load_exact(network, file.load().tensors, file.path, f"the network {type(network).__name__}")
        self.weights_hash = module_hash(network)
        scaled = f"mean {list(self._mean)}, deviation {list(self._std)}"
        self.preprocessing = f"uint8, bilinear {size} with antialias, {scaled}"
        where = next((tensor.device for tensor in network.state_dict().values()), torch.device("cpu"))
        probe = torch.arange(2 * 3 * size * size, device=where).view(2, 3, size, size).to(torch.uint8)
        self.dims: Mapping[str, int] = {layer: features.shape[1] for layer, features in self._layers(probe).items()}

    def to(self, device: torch.device | str) -> Self:
        self._network.to(device)
        return self

    def __call__(self, pixels: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        found = self._layers(pixels)
        return {layer: found[layer] for layer in layers}

    @torch.inference_mode()
    def _layers(self, pixels: Tensor) -> dict[str, Tensor]:
        with full_float32(pixels.device):
            out = self._network(normalize(resize(pixels, self._size, "bilinear"), self._mean, self._std))
        found = dict(out) if isinstance(out, Mapping) else {"pooled": out}
        for layer, features in found.items():
            good = isinstance(features, Tensor) and features.ndim == 2 and len(features) == len(pixels)
            if not good:
                got = f"{list(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
                raise ValueError(
                    f"features.network must give [B, d] for B images, or a mapping of layers to such; layer {layer!r} "
                    f"is {got} for B = {len(pixels)}: pool or flatten it"
                )
            if layer == "pixels":
                raise ValueError("features.network must not have a layer 'pixels', which is the images themselves")
            if not torch.isfinite(features).all():
                raise ValueError(f"features.network must give finite features, and layer {layer!r} has NaN or infinity")
        return {layer: features.float() for layer, features in found.items()}


def _channels(name: str, values: Sequence[float]) -> tuple[float, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != 3:
        check.fail(name, values, "three numbers, one a channel")
    return tuple(check.number(name, value) for value in values)


def module_hash(network: nn.Module) -> str:
    """sha256 over names, types, shapes and values of the state dict."""
    total = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()
