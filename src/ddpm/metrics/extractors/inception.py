"""The Inception of published FID and IS: Szegedy et al. 2015, as TensorFlow had it on 2015-12-05."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from ddpm.metrics.extractors.base import NetworkExtractor
from ddpm.metrics.weights import Published, WeightsFile, not_those_of

STANDARD = Published(
    url=URL_INCEPTION_V3,
    file=URL_INCEPTION_V3.rsplit("/", 1)[1],
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    megabytes=96,
)
"""Converted from TensorFlow's; torch-fidelity and pytorch-fid publish the same 95,628,359 bytes under two names, both
of which end in the first eight digits of their sha256. A converted copy (safetensors) has another hash."""

SPATIAL_CHANNELS = 7


class Inception(NetworkExtractor):
    """As torch-fidelity builds it. Images are resized to 299 by TensorFlow 1's bilinear rule, without antialiasing.

    "pooled": the 2048 features of FID. "logits": the 1008 of IS, without bias, as torch-fidelity and the original
    code have them. "spatial": the 7 x 17 x 17 of sFID, the first channels of the fourth 17 x 17 block's first branch,
    in TensorFlow's order (height, width, channel), as guided diffusion's evaluations have them.

    weights: a local file, or None for torch-fidelity's own (torch hub's cache, else a download). sha256: what the
    file's must be, None for any.
    """

    dims: ClassVar[Mapping[str, int]] = {"pooled": 2048, "logits": 1008, "spatial": SPATIAL_CHANNELS * 17 * 17}
    preprocessing = "uint8, bilinear 299 without antialias (TensorFlow 1)"
    _layers: ClassVar[Mapping[str, str]] = {"pooled": "2048", "logits": "logits_unbiased"}

    def __init__(self, weights: str | Path | None = None, sha256: str | None = None) -> None:
        super().__init__("inception", WeightsFile.choose(weights, sha256, STANDARD))
        self._spatial: Tensor | None = None

    def _features(self, network: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
        found = dict(zip(self._layers, network(pixels), strict=True))
        return {**found, "spatial": self._spatial.permute(0, 2, 3, 1).flatten(1)}

    def _keep_spatial(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self._spatial = output[:, :SPATIAL_CHANNELS].float()

    def _build(self, tensors: dict[str, Tensor]) -> nn.Module:
        """torch-fidelity's constructor insists on unpickling a file, so it gets one that was just written in memory."""
        file = io.BytesIO()
        torch.save(tensors, file)
        file.seek(0)
        layers = list(self._layers.values())
        try:
            network = FeatureExtractorInceptionV3("inception-v3-compat", layers, feature_extractor_weights_path=file)
        except RuntimeError:  # a page of key names
            what = "the FID Inception; torchvision's Inception, for one, is another network"
            raise not_those_of(what, tensors, self._file.source) from None
        network.Mixed_6d.branch1x1.register_forward_hook(self._keep_spatial)
        # channels_last: 1.4 to 2 times the images/s on CPU, features equal to 4e-7
        return network.to(memory_format=torch.channels_last)
