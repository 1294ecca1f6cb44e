"""The generator of denoising diffusion GANs (Xiao et al. 2022, appendix C.1): an NCSN++ U-Net steered by a latent.

NCSN++ is that of Song et al. 2021, "Score-Based Generative Modeling through SDEs", appendix H.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.base import check
from ddpm.networks.attention import Attention
from ddpm.networks.embeddings import TimeEmbedding, rows_of
from ddpm.networks.fir import FIR, FIRDownsample, FIRUpsample
from ddpm.networks.layers import conv1x1, conv3x3, group_norm, initialise, linear_layer
from ddpm.networks.settings import UNetSettings, check_numbers, check_size


def num_groups(channels: int) -> int:
    return min(channels // 4, 32)


class PixelNorm(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        """`[B, C]`, each row with a mean square of 1."""
        return z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class AdaptiveGroupNorm(nn.Module):
    """A group norm whose scales and shifts are linear in the style; at the start about 1 and 0."""

    def __init__(self, channels: int, style_channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(num_groups(channels), channels, eps=1e-6, affine=False)
        self.style = linear_layer(style_channels, 2 * channels)
        nn.init.ones_(self.style.bias.data[:channels])

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x: `[B, C, H, W]`, style: `[B, style_channels]`."""
        scale, shift = self.style(style)[:, :, None, None].chunk(2, dim=1)
        return scale * self.norm(x) + shift


class StyleBlock(nn.Module):
    """(shortcut(x) + two times (adaptive norm, SiLU, convolution)) / sqrt 2, with the time added in between.

    resize: changes the resolution of both branches, behind the first SiLU. x: `[B, in_channels, H, W]`, emb:
    `[B, emb_channels]` through its SiLU, style: `[B, style_channels]`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        style_channels: int,
        dropout: float,
        resize: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = AdaptiveGroupNorm(in_channels, style_channels)
        self.resize = nn.Identity() if resize is None else resize
        self.conv1 = conv3x3(in_channels, out_channels)
        self.time = linear_layer(emb_channels, out_channels)
        self.norm2 = AdaptiveGroupNorm(out_channels, style_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = almost_zero(conv3x3(out_channels, out_channels))
        has_shortcut = in_channels != out_channels or resize is not None
        self.shortcut = conv1x1(in_channels, out_channels) if has_shortcut else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor, style: Tensor) -> Tensor:
        h = self.conv1(self.resize(F.silu(self.norm1(x, style))))
        h = F.silu(self.norm2(h + self.time(emb)[:, :, None, None], style))
        return rescaled(self.shortcut(self.resize(x)), self.conv2(self.dropout(h)))


class RescaledAttention(Attention):
    """(x + attention(norm(x))) / sqrt 2, with one head and small weights at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 1, num_groups(channels))
        self.qkv.weight.data *= 0.1**0.5
        almost_zero(self.out)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / math.sqrt(2)


class GeneratorLevel(nn.Module):
    """The blocks of one resolution, each with its attention if it has one, and the way to the next. A container."""

    def __init__(
        self, blocks: Iterable[StyleBlock], attentions: Iterable[nn.Module], resample: StyleBlock | None
    ) -> None:
        super().__init__()
        self.blocks, self.attentions = nn.ModuleList(blocks), nn.ModuleList(attentions)
        self.resample = resample


@final
class DDGANGenerator(nn.Module):
    """`network(x, time, latent=z) -> [B, C, H, W]`, an x0 drawn by z, in [-1, 1].

    x: `[B, in_channels, H, W]`; time: `[B]` in 0..T-1; z: standard normal `[B, latent_channels]`.

    base_channels, channel_mults, num_res_blocks, attention_levels, dropout, patch_size: as of `UNet`.
    style_channels: width of the mapping network, which has num_mapping_layers linear layers: what it makes of z, the
    style, scales and shifts the norms of all residual blocks. num_classes: label, int64 `[B]`, adds a vector of its
    class to the style; -1 and no label add nothing. H and W must divide by patch_size * 2^(levels - 1).
    """

    def __init__(
        self,
        in_channels: int,
        base_channels: int,
        channel_mults: Sequence[int],
        num_res_blocks: int,
        attention_levels: Sequence[int],
        latent_channels: int,
        style_channels: int,
        num_mapping_layers: int,
        *,
        dropout: float = 0.0,
        patch_size: int = 1,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in {
            "latent_channels": latent_channels,
            "style_channels": style_channels,
            "num_mapping_layers": num_mapping_layers,
        }.items():
            check.positive_int(name, value)
        settings = UNetSettings(
            *(in_channels, base_channels, channel_mults, num_res_blocks, attention_levels, dropout),
            num_groups=num_groups(base_channels),
            patch_size=patch_size,
        )
        widths, levels = settings.widths, range(len(settings.widths))
        self.in_channels = self.out_channels = in_channels
        self.latent_channels, self.patch_size, self.num_classes = latent_channels, patch_size, num_classes
        emb_channels, in_patches = 4 * base_channels, in_channels * patch_size**2

        def block(channels: int, width: int, resize: nn.Module | None = None) -> StyleBlock:
            return StyleBlock(channels, width, emb_channels, style_channels, dropout, resize)

        def attention(level: int) -> nn.Module:
            return RescaledAttention(widths[level]) if level in settings.attention_levels else nn.Identity()

        sizes = [latent_channels] + num_mapping_layers * [style_channels]
        self.mapping = nn.ModuleList(linear_layer(*pair) for pair in itertools.pairwise(sizes))
        self.normalize = PixelNorm()
        self.time = TimeEmbedding(base_channels, emb_channels)
        self.stem = conv3x3(in_patches, base_channels)

        self.down, self.pyramid, skips = nn.ModuleList(), nn.ModuleList(), [base_channels]
        for level, width in enumerate(widths):
            blocks = [block(skips[-1] if i == 0 else width, width) for i in range(num_res_blocks)]
            is_last = level == levels[-1]
            down = None if is_last else block(width, width, FIRDownsample())
            self.down.append(GeneratorLevel(blocks, [attention(level) for _ in blocks], down))
            if not is_last:
                self.pyramid.append(PyramidStep(in_patches if level == 0 else widths[level - 1], width))
            skips += num_res_blocks * [width] + ([] if is_last else [width])

        width = widths[-1]
        self.middle = nn.ModuleList([block(width, width), RescaledAttention(width), block(width, width)])

        self.up = nn.ModuleList()
        for level in reversed(levels):
            blocks = []
            for _ in range(num_res_blocks + 1):
                blocks.append(block(width + skips.pop(), widths[level]))
                width = widths[level]
            up = block(width, width, FIRUpsample()) if level else None
            self.up.append(GeneratorLevel(blocks, [attention(level)], up))

        self.norm = group_norm(num_groups(widths[0]), widths[0])
        self.out = almost_zero(conv3x3(widths[0], in_patches))
        self.label = nn.Embedding(num_classes, style_channels) if num_classes else None

    def forward(
        self, x: Tensor, time: Tensor, latent: Tensor | None = None, label: Tensor | None = None, **others: Tensor
    ) -> Tensor:
        self._check(x, latent, label, others)
        emb, style = F.silu(self.time(time)), self.style(latent, label)
        x = F.pixel_unshuffle(x, self.patch_size)

        h, pyramid = self.stem(x), x
        skips = [h]
        for number, level in enumerate(self.down):
            for block, attention in zip(level.blocks, level.attentions, strict=True):
                h = attention(block(h, emb, style))
                skips.append(h)
            if level.resample is not None:
                h = pyramid = rescaled(self.pyramid[number](pyramid), level.resample(h, emb, style))
                skips.append(h)

        first, attention, second = self.middle
        h = second(attention(first(h, emb, style)), emb, style)

        for level in self.up:
            for block in level.blocks:
                h = block(torch.cat([h, skips.pop()], dim=1), emb, style)
            h = level.attentions[0](h)
            if level.resample is not None:
                h = level.resample(h, emb, style)

        with torch.autocast(x.device.type, enabled=False):
            h = self.out(F.silu(self.norm(h.to(self.out.weight.dtype))))
        return F.pixel_shuffle(h, self.patch_size).tanh()

    def style(self, latent: Tensor, label: Tensor | None) -> Tensor:
        style = self.normalize(latent.to(self.out.weight.dtype))
        for layer in self.mapping:
            style = F.silu(layer(style))
        if self.label is None:
            return style
        label = torch.full((len(latent),), -1, device=latent.device) if label is None else label
        return style + rows_of(self.label, label).to(style.dtype)

    def _check(self, x: Tensor, latent: Tensor | None, label: Tensor | None, others: dict[str, Tensor]) -> None:
        check_latent(latent, len(x), self.latent_channels)
        refused = [*others, *(["label"] if label is not None and self.label is None else [])]
        if refused:
            raise ValueError(f"this generator takes no condition of the name {', '.join(refused)}")
        if x.shape[1] != self.in_channels:
            raise ValueError(f"this generator has in_channels = {self.in_channels}, got images of {x.shape[1]}")
        if label is not None and self.num_classes:
            last = self.num_classes - 1
            check_numbers("label", label, -1, last, f"a class in 0..{last}, or -1 for none")
        check_size([*x.shape[2:]], len(self.down), self.patch_size)


class PyramidStep(nn.Module):
    """Half the resolution by the low-pass filter and a strided convolution: the image beside the feature maps."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.filter = FIR()
        self.conv = initialise(nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, out_channels, H / 2, W / 2]`, of even sides."""
        return self.conv(F.conv2d(x, self.filter.filters(x), padding=2, groups=x.shape[1]))


def check_latent(latent: Tensor | None, num: int, channels: int) -> None:
    if latent is None:
        raise ValueError(
            "this network draws x0 from a distribution, by a latent at each step, and was given none: what needs the "
            "mean of x0 (a likelihood, an ODE, a regression loss) cannot use it"
        )
    if latent.shape != (num, channels):
        check.fail("latent", [*latent.shape], f"of the shape [{num}, {channels}]")


def rescaled(x: Tensor, y: Tensor) -> Tensor:
    """The sum of two feature maps of variance 1, with variance 1."""
    return (x + y) / math.sqrt(2)


def almost_zero(layer: nn.Conv2d) -> nn.Conv2d:
    """For the last layer of a branch: 1e-5 times its weights, so that it starts as next to nothing."""
    layer.weight.data *= 1e-5
    return layer
