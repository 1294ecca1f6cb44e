"""DINOv2 (Oquab et al. 2023): features learned without labels, for FD-DINOv2 (Stein et al. 2023).

torch-fidelity's extractor downloads the code of the network through torch hub and takes no local weights. The network
is a plain vision transformer, which is implemented here with the tensor names of the published file.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ddpm.base import check
from ddpm.metrics.extractors.base import NetworkExtractor
from ddpm.metrics.extractors.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalize, resize
from ddpm.metrics.weights import Published, WeightsFile, load_exact

PATCH, SIZE, TRAINED_GRID = 14, 224, 37
"""The position embeddings in the published files are for 518 x 518 images, 37 x 37 patches."""

MODELS = {"vit-s-14": (384, 12, 6), "vit-b-14": (768, 12, 12), "vit-l-14": (1024, 24, 16)}
"""Width, depth, heads. The giant model has different blocks and is not supported."""

FILES = {
    "vit-s-14": ("b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9", 88),
    "vit-b-14": ("0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73", 346),
    "vit-l-14": ("d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428", 1218),
}
"""sha256 and megabytes of the published files."""


def published_dinov2(model: str) -> Published:
    code = f"dinov2_{model.replace('-', '')}"  # dinov2_vitl14
    file = f"{code}_pretrain.pth"
    return Published(f"https://dl.fbaipublicfiles.com/dinov2/{code}/{file}", file, *FILES[model])


class Dinov2(NetworkExtractor):
    """The layer "pooled" is the class token after the last normalization, 384, 768 or 1024 numbers.

    Images are resized as in EDM2's evaluation: bicubic with antialias, without clamping and rounding to 8 bits.
    model: vit-s-14, vit-b-14, or vit-l-14 as in published FD-DINOv2. weights: a local file; None: the published one
    (torch hub's cache, else a download). sha256: required hash of the local file; None: any.
    """

    preprocessing = "uint8, bicubic 224 with antialias, ImageNet's mean and deviation"

    def __init__(self, model: str = "vit-l-14", weights: str | Path | None = None, sha256: str | None = None) -> None:
        self._model = check.one_of("features.model", model, MODELS)
        super().__init__(f"dinov2-{model}", WeightsFile.choose(weights, sha256, published_dinov2(model)))
        self.dims: Mapping[str, int] = {"pooled": MODELS[model][0]}

    def _build(self, tensors: dict[str, Tensor]) -> nn.Module:
        tensors = {name: tensor.float() for name, tensor in tensors.items() if name != "mask_token"}  # for training
        with torch.device("meta"):
            network = VisionTransformer(*MODELS[self._model])
        load_exact(network, tensors, self._file.source, f"DINOv2's {self._model}")
        return network

    def _features(self, network: nn.Module, pixels: Tensor) -> Mapping[str, Tensor]:
        return {"pooled": network(normalize(resize(pixels, SIZE, "bicubic"), IMAGENET_MEAN, IMAGENET_STD))}


class VisionTransformer(nn.Module):
    """Maps `[B, 3, H, W]`, with sides divisible by 14, to the class token `[B, width]`. Dosovitskiy et al. 2021, with
    a learned scale at the end of each residual branch (Touvron et al. 2021)."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + TRAINED_GRID**2, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, PATCH)})
        self.blocks = nn.ModuleList(DinoBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](x)  # [B, width, H / 14, W / 14]
        places = self._places(patches.shape[2:])
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), patches.flatten(2).mT], dim=1) + places
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])

    def _places(self, grid: torch.Size) -> Tensor:
        """Position embeddings `[1, 1 + patches, width]`. Like the published model, we add 0.1 patches to the size in
        the interpolation, against rounding. This shifts all positions slightly, and changes the features."""
        if grid == (TRAINED_GRID, TRAINED_GRID):
            return self.pos_embed
        learned = self.pos_embed[:, 1:].mT.unflatten(2, (TRAINED_GRID, TRAINED_GRID))
        scale = [(side + 0.1) / TRAINED_GRID for side in grid]
        here = nn.functional.interpolate(learned, scale_factor=scale, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], here.flatten(2).mT], dim=1)


class DinoBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = DinoAttention(width, heads), nn.ModuleDict()
        self.mlp["fc1"], self.mlp["fc2"] = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.ls1, self.ls2 = (nn.ParameterDict({"gamma": nn.Parameter(torch.ones(width))}) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1["gamma"] * self.attn(self.norm1(x))
        return x + self.ls2["gamma"] * self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(x))))


class DinoAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each [B, heads, N, d]
        return self.proj(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
