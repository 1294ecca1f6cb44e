"""A residual network of fully connected layers: for points in the plane and other images of a few pixels."""

import math
from collections.abc import Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.base import check
from ddpm.networks.embeddings import TimeEmbedding
from ddpm.networks.layers import linear_layer, zero_init

MAX_BLOCKS = 256  # beyond any use; a setting out of a file must not build blocks without end


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

    size: of the images, one length or [height, width]. width: of the layers and of the embedded time; even.
    out_channels: at least in_channels; more of them where the loss asks for a learned variance.
    Under autocast the last norm and layer stay float32.
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
        self.settings = _check_settings(
            in_channels=in_channels,
            size=size,
            width=width,
            num_blocks=num_blocks,
            out_channels=out_channels,
            dropout=dropout,
        )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.size: tuple[int, int] = (size, size) if isinstance(size, int) else tuple(size)
        num_pixels = math.prod(self.size)

        self.time = TimeEmbedding(width, width)
        self.stem = linear_layer(in_channels * num_pixels, width)
        self.blocks = nn.ModuleList(MLPBlock(width, dropout) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)
        self.out = zero_init(linear_layer(width, out_channels * num_pixels))

    def forward(self, x: Tensor, time: Tensor, **cond: Tensor) -> Tensor:
        if cond:
            raise ValueError(f"this MLP takes no conditions, got {', '.join(sorted(cond))}")
        if x.shape[1:] != (self.in_channels, *self.size):
            takes, got = (" x ".join(map(str, shape)) for shape in ((self.in_channels, *self.size), x.shape[1:]))
            raise ValueError(f"this MLP takes images of {takes} (in_channels, size), got {got}")
        emb = F.silu(self.time(time))
        h = self.stem(x.flatten(1))
        for block in self.blocks:
            h = block(h, emb)
        with torch.autocast(x.device.type, enabled=False):
            h = self.out(F.silu(self.norm(h.to(self.out.weight.dtype))))
        return h.view(-1, self.out_channels, *self.size)


def _check_settings(**settings: Any) -> dict[str, Any]:
    """The settings as plain values, or a ValueError about the first that cannot be."""
    size = settings["size"]
    if isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2:
        settings["size"] = [check.positive_int(f"size[{i}]", side) for i, side in enumerate(size)]
    elif isinstance(size, bool) or not isinstance(size, int) or size < 1:
        check.fail("size", size, "one length or [height, width]")
    for name in ("in_channels", "width", "out_channels"):
        check.positive_int(name, settings[name])
    check.integer("num_blocks", settings["num_blocks"], 1, MAX_BLOCKS)
    check.number("dropout", settings["dropout"], low=0.0, high=1.0)
    if settings["width"] < 4 or settings["width"] % 2:
        check.fail("width", settings["width"], "even and at least 4, since half of the time's waves are cosines")
    if settings["out_channels"] < settings["in_channels"]:
        check.fail("out_channels", settings["out_channels"], f"at least in_channels = {settings['in_channels']}")
    return settings
