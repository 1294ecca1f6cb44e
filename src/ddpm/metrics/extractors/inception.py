"""The Inception network of published FID and IS: Szegedy et al. 2015, TensorFlow's model of 2015-12-05."""

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
"""Converted from TensorFlow's. torch-fidelity and pytorch-fid publish the same 95,628,359 bytes under two names, which
both end in the first eight digits of the sha256. A converted copy (safetensors) has another hash."""

SPATIAL_CHANNELS = 7


class Inception(NetworkExtractor):
    """torch-fidelity's network. Images are resized to 299 by TensorFlow 1's bilinear rule, without antialiasing.

    "pooled": the 2048 features of FID. "logits": the 1008 logits of IS, without bias, as in torch-fidelity and the
    original code. "spatial": the 7 x 17 x 17 features of sFID, which are the first channels of the first branch of the
    fourth 17 x 17 block, in TensorFlow's order (height, width, channel), as in guided diffusion's evaluations.

    weights: a local file; None: torch-fidelity's (torch hub's cache, else a download). sha256: required hash of the
    local file; None: any.
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
        """torch-fidelity's constructor always unpickles a file, so it gets one that is written in memory."""
        file = io.BytesIO()
        torch.save(tensors, file)
        file.seek(0)
        layers = list(self._layers.values())
        try:
            network = FeatureExtractorInceptionV3("inception-v3-compat", layers, feature_extractor_weights_path=file)
        except RuntimeError:  # a long list of keys
            what = "the FID Inception; torchvision's Inception, for example, is another network"
            raise not_those_of(what, tensors, self._file.source) from None
        network.Mixed_6d.branch1x1.register_forward_hook(self._keep_spatial)
        # channels_last: 1.4 to 2 times the images/s on CPU, features equal to 4e-7
        return network.to(memory_format=torch.channels_last)
