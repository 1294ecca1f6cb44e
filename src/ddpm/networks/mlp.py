"""A residual network of fully connected layers, for 2-D points and other images of a few pixels."""

import math
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.base import check
from ddpm.base.memory import require_memory
from ddpm.networks.embeddings import TimeEmbedding
from ddpm.networks.layers import linear_layer, zero_init
from ddpm.networks.settings import check_input

BLOCK_BYTES = 2**15  # memory of the Python objects of a residual block


class MLPBlock(nn.Module):
    """h + two times (norm, SiLU, linear), with the time added in between, as in the U-Net. h, emb: `[B, width]`."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = linear_layer(width, width)
        self.time = linear_layer(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = zero_init(linear_layer(width, width))

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        inner = self.linear1(F.silu(self.norm1(h))) + self.time(emb)
        return h + self.linear2(self.dropout(F.silu(self.norm2(inner))))


@final
class MLP(nn.Module):
    """`network(x, time) -> [B, out_channels, H, W]`; x: `[B, in_channels, H, W]`, time: `[B]` in 0..T-1.

    size: of the images, one length or [height, width]. width: width of the layers and of the time embedding; even.
    out_channels: at least in_channels; more for a learned variance. Under autocast, the last norm and layer stay
    float32.
    """

    def __init__(
        self,
        in_channels: int,
        size: int | Sequence[int],
        width: int,
        num_blocks: int,
        *,
        out_channels: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        for name, value in {"in_channels": in_channels, "width": width, "out_channels": out_channels}.items():
            check.positive_int(name, value)
        check.positive_int("num_blocks", num_blocks)
        require_memory(num_blocks * BLOCK_BYTES, f"a network of num_blocks = {num_blocks}")
        check.number("dropout", dropout, low=0.0, high=1.0)
        if width < 4 or width % 2:
            check.fail("width", width, "even and at least 4, because half of the time features are cosines")
        if out_channels < in_channels:
            check.fail("out_channels", out_channels, f"at least in_channels = {in_channels}")
        self.in_channels, self.out_channels, self.size = in_channels, out_channels, check.height_width("size", size)
        num_pixels = math.prod(self.size)

        self.time = TimeEmbedding(width, width)
        self.stem = linear_layer(in_channels * num_pixels, width)
        self.blocks = nn.ModuleList(MLPBlock(width, dropout) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)
        self.out = zero_init(linear_layer(width, out_channels * num_pixels))

    def forward(self, x: Tensor, time: Tensor, **cond: Tensor) -> Tensor:
        check_input("MLP", x, (self.in_channels, *self.size), cond)
        emb = F.silu(self.time(time))
        h = self.stem(x.flatten(1))
        for block in self.blocks:
            h = block(h, emb)
        with torch.autocast(x.device.type, enabled=False):
            h = self.out(F.silu(self.norm(h.to(self.out.weight.dtype))))
        return h.view(-1, self.out_channels, *self.size)
