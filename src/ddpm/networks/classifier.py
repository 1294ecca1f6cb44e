"""A classifier of noisy images: the U-Net's encoder, then attention pooling. Dhariwal and Nichol 2021, section 4."""

from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.base import check
from ddpm.networks.attention import AttentionPool
from ddpm.networks.levels import BlockFactory, encode
from ddpm.networks.settings import UNetSettings, check_input, check_size


@final
class Classifier(nn.Module):
    """`network(x, time) -> [B, num_classes]`, logits in float32; x: `[B, in_channels, H, W]`, time: `[B]` in 0..T-1.

    size: of the images, one length or [height, width]; it is fixed, because the pooling learns a vector for each
    position. settings: fields of `UNetSettings`. Under autocast, all layers after the middle blocks stay float32.
    """

    classifies: ClassVar[bool] = True
    no_samples: ClassVar[str] = (
        "a classifier, which generates no images: it is trained with loss=classification and used with "
        "guidance=classifier guidance.classifier=CHECKPOINT"
    )

    def __init__(self, *, size: int | Sequence[int], num_classes: int | None, **settings: Any) -> None:
        super().__init__()
        if num_classes is None:
            check.fail("num_classes", num_classes, "the number of classes, which cond=class sets")
        check.positive_int("num_classes", num_classes)
        settings = UNetSettings(**settings)
        factory, width, patch_size = BlockFactory(settings), settings.widths[-1], settings.patch_size
        self.in_channels, self.out_channels, self.patch_size = settings.in_channels, num_classes, patch_size
        self.size = check.height_width("size", size)
        check_size(self.size, len(settings.widths), patch_size)

        self.time = factory.time()
        self.stem = factory.stem()
        self.down, self.middle = factory.down_path(), factory.middle()
        self.norm = factory.norm(width)
        smaller = patch_size * 2 ** (len(settings.widths) - 1)
        num_pixels = (self.size[0] // smaller) * (self.size[1] // smaller)
        self.pool = AttentionPool(width, num_classes, settings.heads(width), num_pixels)

    def forward(self, x: Tensor, time: Tensor, **cond: Tensor) -> Tensor:
        check_input("classifier", x, (self.in_channels, *self.size), cond)
        emb = F.silu(self.time(time))
        h = encode(self.down, self.stem(F.pixel_unshuffle(x, self.patch_size)), emb)[-1]
        for block in self.middle:
            h = block(h, emb)
        with torch.autocast(x.device.type, enabled=False):
            return self.pool(F.silu(self.norm(h.to(self.norm.weight.dtype))))
