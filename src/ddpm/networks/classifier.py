"""A classifier of noisy images: the U-Net's way down, then attention pooling. Dhariwal and Nichol 2021, section 4."""

from collections.abc import Sequence
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.base import check
from ddpm.networks.attention_pool import AttentionPool
from ddpm.networks.conventions import CONVENTIONS
from ddpm.networks.embeddings import TimeEmbedding
from ddpm.networks.layers import conv3x3
from ddpm.networks.levels import BlockFactory, encode
from ddpm.networks.settings import check_settings, check_size, height_and_width


@final
class Classifier(nn.Module):
    """`network(x, time) -> [B, num_classes]`, logits in float32; x: `[B, in_channels, H, W]`, time: `[B]` in 0..T-1.

    size: of the images, one length or [height, width]; the pooling learns a vector for each place, so it takes no
    other. All further settings are those of the `UNet`. Under autocast all behind the middle stays float32.
    """

    classifies: ClassVar[bool] = True

    def __init__(
        self,
        in_channels: int,
        size: int | Sequence[int],
        base_channels: int,
        channel_mults: Sequence[int],
        num_res_blocks: int,
        attention_levels: Sequence[int] = (),
        *,
        num_classes: int,
        dropout: float = 0.0,
        num_heads: int = 1,
        head_channels: int | None = None,
        num_groups: int = 32,
        patch_size: int = 1,
        scale_shift: bool = False,
        resample: str = "conv",
        convention: str = "ddpm",
        time_channels: int | None = None,
        num_timesteps: int | None = None,
    ) -> None:
        super().__init__()
        if num_classes is None:
            check.fail("num_classes", num_classes, "the number of classes, which cond=class sets")
        self.settings = check_settings(
            in_channels=in_channels,
            base_channels=base_channels,
            channel_mults=channel_mults,
            num_res_blocks=num_res_blocks,
            attention_levels=attention_levels,
            num_classes=num_classes,
            dropout=dropout,
            num_heads=num_heads,
            head_channels=head_channels,
            num_groups=num_groups,
            patch_size=patch_size,
            scale_shift=scale_shift,
            resample=resample,
            convention=convention,
            time_channels=time_channels,
            num_timesteps=num_timesteps,
        )
        self.size = height_and_width(size)
        self.settings["size"] = list(self.size)
        check_size(self.size, len(channel_mults), patch_size)
        self.in_channels, self.out_channels, self.patch_size = in_channels, num_classes, patch_size
        widths = [base_channels * mult for mult in channel_mults]
        time_channels = base_channels if time_channels is None else time_channels
        emb_channels = 4 * time_channels
        kit = BlockFactory(
            emb_channels=emb_channels,
            dropout=dropout,
            num_heads=num_heads,
            head_channels=head_channels,
            num_groups=num_groups,
            scale_shift=scale_shift,
            resample=resample,
            convention=CONVENTIONS[convention],
        )

        scale = 1000 / num_timesteps if num_timesteps else 1.0
        self.time = TimeEmbedding(time_channels, emb_channels, scale, kit.convention.waves)
        self.stem = conv3x3(in_channels * patch_size**2, base_channels)
        self.down = kit.down_path(base_channels, widths, num_res_blocks, attention_levels)
        self.middle = kit.middle(widths[-1])
        self.norm = kit.norm(widths[-1])
        height, width = (side // (patch_size * 2 ** (len(widths) - 1)) for side in self.size)
        self.pool = AttentionPool(widths[-1], num_classes, kit.heads(widths[-1]), height * width)

    def forward(self, x: Tensor, time: Tensor, **cond: Tensor) -> Tensor:
        if cond:
            raise ValueError(f"this classifier takes no conditions, got {', '.join(sorted(cond))}")
        if x.shape[1:] != (self.in_channels, *self.size):
            takes, got = (" x ".join(map(str, shape)) for shape in ((self.in_channels, *self.size), x.shape[1:]))
            raise ValueError(f"this classifier takes images of {takes} (in_channels, size), got {got}")
        emb = F.silu(self.time(time))
        h = encode(self.down, self.stem(F.pixel_unshuffle(x, self.patch_size)), emb)[-1]
        for block in self.middle:
            h = block(h, emb)
        with torch.autocast(x.device.type, enabled=False):
            return self.pool(F.silu(self.norm(h.to(self.norm.weight.dtype))))
