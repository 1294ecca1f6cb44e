"""CLIP's image encoder (Radford et al. 2021): features learned from captions, for FID as in Kynkaanniemi et al. 2023.

The network is torch-fidelity's. The file is read here, because torch-fidelity would execute code in it.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS, VisionTransformer

from ddpm.base import check
from ddpm.metrics.extractors.base import NetworkExtractor
from ddpm.metrics.extractors.preprocess import normalize, resize
from ddpm.metrics.weights import Published, WeightsFile, load_exact

SIZE = 224
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

MODELS = {"vit-b-32": (32, 768, 12, 512), "vit-b-16": (16, 768, 12, 512), "vit-l-14": (14, 1024, 24, 768)}
"""Side of a patch, width, depth, length of the features."""

MEGABYTES = {"vit-b-32": 354, "vit-b-16": 351, "vit-l-14": 933}


def published_clip(model: str) -> Published:
    """OpenAI's file, with the file name that torch-fidelity uses in the cache."""
    name = f"clip-{model}"
    sha256 = MODEL_METADATA[name]["hash"]
    return Published(MODEL_URLS[name], f"{name}-{sha256}.pt", sha256, MEGABYTES[model], is_program=True)


class Clip(NetworkExtractor):
    """The layer "pooled" is the image embedding of CLIP before normalization: 512 or 768 numbers.

    Images are resized as in CLIP (bicubic with antialias); torch-fidelity uses TensorFlow's bilinear resizing instead.
    model: vit-b-32, vit-b-16 or vit-l-14. weights: a local file with OpenAI's names of tensors, "visual.conv1.weight"
    and so on, or OpenAI's file itself; None: the published one (torch hub's cache, else a download). sha256: required
    hash of the local file; None: any.
    """

    preprocessing = "uint8, bicubic 224 with antialias, CLIP's mean and deviation"

    def __init__(self, model: str = "vit-b-32", weights: str | Path | None = None, sha256: str | None = None) -> None:
        self._model = check.one_of("features.model", model, MODELS)
        super().__init__(f"clip-{model}", WeightsFile.choose(weights, sha256, published_clip(model)))
        self.dims: Mapping[str, int] = {"pooled": MODELS[model][3]}

    def _build(self, tensors: dict[str, Tensor]) -> nn.Module:
        encoder = {k.removeprefix("visual."): v.float() for k, v in tensors.items() if k.startswith("visual.")}
        patch, width, depth, dim = MODELS[self._model]
        with torch.device("meta"):
            network = VisionTransformer(SIZE, patch, width, depth, width // 64, dim)
        load_exact(network, encoder, self._file.source, f"CLIP's {self._model}")
        return network

    def _features(self, network: nn.Module, pixels: Tensor) -> Mapping[str, Tensor]:
        return {"pooled": network(normalize(resize(pixels, SIZE, "bicubic"), MEAN, STD))}
