"""A U-Net with a small trained image of the labels of all pixels beside x (Rombach et al. 2022, section 4.3.2)."""

from typing import Any, final

import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.base import check
from ddpm.networks.unet import AroundUNet, UNet


@final
class SemanticUNet(AroundUNet):
    """`network(x, time, label_map) -> [B, out_channels, H, W]`; label_map: int64 `[B, f H, f W]` in 0..num_labels-1,
    -1 for none.

    In the paper, one map of 0 and 1 per label is halved bilinearly until it has the size of x, and a 1x1 convolution
    without bias maps them to label_channels, which are concatenated to x. All of this is linear, so here each pixel
    takes its label's column of the convolution, and blocks of f x f pixels are averaged: the same numbers, without the
    num_labels maps. settings: arguments of `UNet`.
    """

    def __init__(
        self,
        in_channels: int,
        label_channels: int,
        *,
        num_labels: int | None = None,
        out_channels: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if num_labels is None:
            check.fail("num_labels", num_labels, "an integer; cond=semantic sets it")
        check.positive_int("num_labels", num_labels)
        check.positive_int("label_channels", label_channels)
        self.unet = UNet(in_channels, out_channels=out_channels, concat_channels=label_channels, **settings)
        self.labels = nn.Conv2d(num_labels, label_channels, kernel_size=1, bias=False)

    def forward(self, x: Tensor, time: Tensor, label_map: Tensor | None = None, **conditions: Tensor) -> Tensor:
        if label_map is None:
            raise ValueError("this U-Net needs the condition label_map, which is missing")
        factor = label_map.shape[-1] // x.shape[-1]
        if factor < 1 or label_map.shape != (len(x), factor * x.shape[2], factor * x.shape[3]):
            shape = [len(x), f"f {x.shape[2]}", f"f {x.shape[3]}"]
            check.fail("label_map", [*label_map.shape], f"of the shape {shape} for a whole number f")
        return self.unet(x, time, concat=self.image_of(label_map, factor), **conditions)

    def image_of(self, label_map: Tensor, factor: int) -> Tensor:
        """`[B, label_channels, H, W]`; a label of -1 is 0."""
        column = F.embedding(label_map.clamp(min=0), self.labels.weight.flatten(1).t())
        known = column * (label_map >= 0)[..., None]
        return F.avg_pool2d(known.permute(0, 3, 1, 2), factor)
