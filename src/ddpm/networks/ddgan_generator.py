"""The generator of denoising diffusion GANs (Xiao, Kreis and Vahdat 2022, appendix C): a U-Net that draws x0.

It is the NCSN++ of Song et al. 2021 (appendix H) whose norms are steered by a latent, as in StyleGAN.
"""

from collections.abc import Sequence
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.base import check
from ddpm.networks import layers
from ddpm.networks.attention import Attention
from ddpm.networks.embeddings import TimeEmbedding, add_class
from ddpm.networks.fir import FIR, FIRUpsample
from ddpm.networks.levels import Level
from ddpm.networks.settings import UNetSettings, check_label, check_latent, check_size

ALMOST_ZERO = 1e-10
"""Of the usual variance, where the last layer of a branch starts: its weights are about 1e-5 of the usual."""


def num_groups(channels: int) -> int:
    return min(channels // 4, 32)


def rescaled_sum(x: Tensor, y: Tensor) -> Tensor:
    """With the variance of one of two independent terms."""
    return (x + y) * 0.5**0.5


class StyleNorm(nn.Module):
    """scale * group norm(x) + shift, both linear in the style, and at first near 1 and 0. style: `[B, C]`."""

    def __init__(self, channels: int, style_channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(num_groups(channels), channels, eps=1e-6, affine=False)
        self.style = layers.initialise_by_outputs(nn.Linear(style_channels, 2 * channels))
        nn.init.ones_(self.style.bias.data[:channels])

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale, shift = self.style(style)[:, :, None, None].chunk(2, dim=1)
        return scale * self.norm(x) + shift


class RescaledAttention(Attention):
    """(x + attention(x)) / sqrt(2), with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 1, num_groups(channels))
        layers.scale_variance(self.qkv, 0.1)
        self.out = layers.scale_variance(layers.conv1x1(channels, channels), ALMOST_ZERO)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 0.5**0.5


class StyleBlock(nn.Module):
    """(shortcut(x) + two times (norm by style, SiLU, convolution)) / sqrt(2), with the time added in between.

    others: channels of the embedded time and of the style, and the dropout. resize: changes the resolution of both
    branches, behind the first SiLU. attends: what comes out goes through attention. emb is already through its SiLU.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        others: tuple[int, int, float],
        *,
        resize: nn.Module | None = None,
        attends: bool = False,
    ) -> None:
        super().__init__()
        emb_channels, style_channels, dropout = others
        self.norm1 = StyleNorm(in_channels, style_channels)
        self.resize = nn.Identity() if resize is None else resize
        self.conv1 = layers.conv3x3(in_channels, out_channels)
        self.time = layers.linear_layer(emb_channels, out_channels)
        self.norm2 = StyleNorm(out_channels, style_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = layers.scale_variance(layers.conv3x3(out_channels, out_channels), ALMOST_ZERO)
        changes = in_channels != out_channels or resize is not None
        self.shortcut = layers.conv1x1(in_channels, out_channels) if changes else nn.Identity()
        self.attention = RescaledAttention(out_channels) if attends else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor, style: Tensor) -> Tensor:
        h = self.conv1(self.resize(F.silu(self.norm1(x, style))))
        h = self.norm2(h + self.time(emb)[:, :, None, None], style)
        h = self.conv2(self.dropout(F.silu(h)))
        return self.attention(rescaled_sum(self.shortcut(self.resize(x)), h))


@final
class DDGANGenerator(nn.Module):
    """`network(x, time, latent=z) -> [B, in_channels, H, W]`: an x0 in [-1, 1], drawn by z.

    x: `[B, in_channels, H, W]`; time: `[B]` in 0..T-1; z: standard normal, `[B, latent_channels]`. Without it there is
    a ValueError, since no x0 stands for all.
    base_channels, channel_mults, num_res_blocks, attention_levels, dropout, patch_size: as of `UNet`; but on the way
    up the last block of a level attends alone.
    style_channels, num_mapping_layers: z becomes the style by one linear layer of style_channels and so many more
    (n_mlp in the authors' code), each with a SiLU.
    num_classes: label, int64 `[B]`, adds a vector of its class to the style; -1 and no label add nothing.
    H and W must divide by patch_size * 2^(levels - 1). Under autocast the last norm and convolution stay float32.
    """

    predicts: ClassVar[str] = "X0"  # the only objective

    def __init__(
        self,
        in_channels: int,
        base_channels: int,
        channel_mults: Sequence[int],
        num_res_blocks: int,
        attention_levels: Sequence[int] = (),
        *,
        latent_channels: int = 100,
        style_channels: int = 256,
        num_mapping_layers: int = 3,
        dropout: float = 0.0,
        patch_size: int = 1,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        sizes = in_channels, base_channels, channel_mults, num_res_blocks, attention_levels
        s = UNetSettings(*sizes, dropout=dropout, patch_size=patch_size, num_groups=1)
        unit = 4 if max(s.widths) <= 64 else 32  # so that `num_groups` divides two levels beside each other
        if base_channels % unit:
            check.fail("base_channels", base_channels, f"a multiple of {unit} for levels of {s.widths} channels")
        check.positive_int("latent_channels", latent_channels)
        check.positive_int("style_channels", style_channels)
        check.non_negative_int("num_mapping_layers", num_mapping_layers)
        self.in_channels = self.out_channels = in_channels
        self.latent_channels, self.patch_size = latent_channels, patch_size
        self.num_classes = check.positive_int_or_none("num_classes", num_classes)

        others, inner = (4 * base_channels, style_channels, dropout), len(s.widths) - 1
        channels, pyramid_channels, skips = base_channels, in_channels * patch_size**2, [base_channels]
        self.time = TimeEmbedding(base_channels, 4 * base_channels)
        self.stem = layers.conv3x3(pyramid_channels, base_channels)
        out = layers.conv3x3(base_channels * channel_mults[0], pyramid_channels)
        self.out = layers.scale_variance(out, ALMOST_ZERO)
        self.down = nn.ModuleList()
        for level, width in enumerate(s.widths):
            inputs, attends = [channels] + [width] * (num_res_blocks - 1), level in s.attention_levels
            blocks = [StyleBlock(c, width, others, attends=attends) for c in inputs]
            resample = StyleBlock(width, width, others, resize=FIR()) if level < inner else None
            self.down.append(Level(blocks, resample, pyramid_step(pyramid_channels, width) if level < inner else None))
            skips += [width] * (num_res_blocks + (level < inner))
            channels = pyramid_channels = width
        self.middle = nn.ModuleList(StyleBlock(channels, channels, others, attends=first) for first in (True, False))
        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(s.widths))):
            inputs, attends = [channels] + [width] * num_res_blocks, level in s.attention_levels
            *first, last = (c + skips.pop() for c in inputs)
            blocks = [StyleBlock(c, width, others) for c in first] + [StyleBlock(last, width, others, attends=attends)]
            resample = StyleBlock(width, width, others, resize=FIRUpsample()) if level > 0 else None
            self.up.append(Level(blocks, resample))
            channels = width
        self.norm = layers.group_norm(num_groups(channels), channels)
        self.mapping = nn.Sequential(nn.RMSNorm(latent_channels, eps=1e-8, elementwise_affine=False))
        for inputs in [latent_channels] + [style_channels] * num_mapping_layers:
            self.mapping.extend([layers.initialise_by_outputs(nn.Linear(inputs, style_channels)), nn.SiLU()])
        # The last to be made: the others are drawn as in a network without classes.
        self.label = nn.Embedding(num_classes, style_channels) if num_classes else None

    def forward(self, x: Tensor, time: Tensor, latent: Tensor | None = None, label: Tensor | None = None) -> Tensor:
        self.check_images(x.shape[1:])
        check_latent(latent, len(x), self.latent_channels)
        check_label(label, len(x), self.num_classes)
        emb = F.silu(self.time(time))
        style = add_class(self.mapping(latent.to(self.out.weight.dtype)), self.label, label)

        pyramid = F.pixel_unshuffle(x, self.patch_size)
        h = self.stem(pyramid)
        skips = [h]
        for level in self.down:
            for block in level.blocks:
                h = block(h, emb, style)
                skips.append(h)
            if level.resample is not None:
                h = pyramid = rescaled_sum(level.pyramid(pyramid), level.resample(h, emb, style))
                skips.append(h)

        for block in self.middle:
            h = block(h, emb, style)

        for level in self.up:
            for block in level.blocks:
                h = block(torch.cat([h, skips.pop()], dim=1), emb, style)
            if level.resample is not None:
                h = level.resample(h, emb, style)

        with torch.autocast(x.device.type, enabled=False):
            h = self.out(F.silu(self.norm(h.to(self.out.weight.dtype))))
        return F.pixel_shuffle(h, self.patch_size).tanh()

    def check_images(self, shape: Sequence[int]) -> None:
        """Raise ValueError unless the network takes images of the shape `(C, H, W)`."""
        channels, *size = shape
        if channels != self.in_channels:
            raise ValueError(f"this generator has in_channels = {self.in_channels}, got images of {channels}")
        check_size(size, len(self.down), self.patch_size)


def pyramid_step(in_channels: int, out_channels: int) -> nn.Sequential:
    """`[B, in_channels, H, W]` to `[B, out_channels, H / 2, W / 2]`: the image beside the feature maps."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2)
    return nn.Sequential(FIR(stride=1, padding=2), layers.initialise(conv))
