"""The levels of a U-Net: the blocks of each resolution, and the resampling between levels."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from ddpm.networks.attention import Attention, CrossAttention
from ddpm.networks.blocks import Downsample, ResBlock, Upsample
from ddpm.networks.conventions import CONVENTIONS, Convention
from ddpm.networks.embeddings import TimeEmbedding
from ddpm.networks.layers import conv3x3, group_norm
from ddpm.networks.settings import UNetSettings
from ddpm.networks.transformer import SpatialTransformer

Resample = ResBlock | Downsample | Upsample


class AttentionBlock(nn.Module):
    """A residual block, then optional self-attention, then optional cross-attention to tokens."""

    def __init__(self, res: ResBlock, attention: Attention | None, cross: CrossAttention | None = None) -> None:
        super().__init__()
        self.res = res
        self.attention = attention or nn.Identity()
        self.cross = cross

    def forward(self, x: Tensor, emb: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        h = self.attention(self.res(x, emb))
        return h if self.cross is None else self.cross(h, tokens)


class TransformerBlock(nn.Module):
    """A residual block, then a spatial transformer."""

    def __init__(self, res: ResBlock, transformer: SpatialTransformer) -> None:
        super().__init__()
        self.res = res
        self.transformer = transformer

    def forward(self, x: Tensor, emb: Tensor, tokens: Tensor | None = None) -> Tensor:
        return self.transformer(self.res(x, emb), tokens)


class Level(nn.Module):
    """Container of the blocks of one resolution and the resampling to the next, for `encode` and the U-Nets.

    pyramid: brings an image to the next resolution, beside the feature maps.
    """

    def __init__(
        self, blocks: Iterable[nn.Module], resample: nn.Module | None, pyramid: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resample = resample
        self.pyramid = pyramid


@dataclass(frozen=True)
class BlockFactory:
    """Builds the parts of one network. token_channels: size of tokens for cross-attention; None: no cross-attention.

    timeless: the blocks receive no time.
    """

    settings: UNetSettings
    token_channels: int | None = None
    timeless: bool = False

    @property
    def emb_channels(self) -> int:
        return 0 if self.timeless else 4 * (self.settings.time_channels or self.settings.base_channels)

    @property
    def convention(self) -> Convention:
        return CONVENTIONS[self.settings.convention]

    def time(self) -> TimeEmbedding:
        scale = 1000 / self.settings.num_timesteps if self.settings.num_timesteps else 1.0
        return TimeEmbedding(self.emb_channels // 4, self.emb_channels, scale, self.convention.waves)

    def stem(self, channels: int | None = None) -> nn.Conv2d:
        """The first convolution. channels: those of all inputs that are concatenated; None: in_channels."""
        channels = self.settings.in_channels if channels is None else channels
        return conv3x3(channels * self.settings.patch_size**2, self.settings.base_channels)

    def norm(self, width: int) -> nn.GroupNorm:
        return group_norm(self.settings.num_groups, width, self.convention.norm_eps)

    def res(self, channels: int, width: int, resize: nn.Module | None = None) -> ResBlock:
        s = self.settings
        how = {"scale_shift": s.scale_shift, "norm_eps": self.convention.norm_eps, "resize": resize}
        return ResBlock(channels, width, self.emb_channels, s.dropout, s.num_groups, **how)

    def block(self, channels: int, width: int, attends: bool) -> AttentionBlock | TransformerBlock:
        heads, groups, eps = self.settings.heads(width), self.settings.num_groups, self.convention.norm_eps
        depth = self.settings.transformer_depth
        if attends and depth:
            transformer = SpatialTransformer(width, heads, groups, depth, self.token_channels)
            return TransformerBlock(self.res(channels, width), transformer)
        attention = cross = None
        if attends:
            attention = Attention(width, heads, groups, norm_eps=eps)
        if attends and self.token_channels:
            cross = CrossAttention(width, self.token_channels, heads, groups, norm_eps=eps)
        return AttentionBlock(self.res(channels, width), attention, cross)

    def down(self, width: int) -> Resample:
        if self.settings.resample == "block":
            return self.res(width, width, nn.AvgPool2d(2))
        return Downsample(width, pads_both_sides=self.convention.pads_both_sides)

    def up(self, width: int) -> Resample:
        if self.settings.resample == "block":
            return self.res(width, width, nn.Upsample(scale_factor=2))
        return Upsample(width)

    def down_path(self) -> nn.ModuleList:
        s, channels, levels = self.settings, self.settings.base_channels, nn.ModuleList()
        for level, width in enumerate(s.widths):
            inputs = [channels] + [width] * (s.num_res_blocks - 1)
            blocks = [self.block(c, width, level in s.attention_levels) for c in inputs]
            levels.append(Level(blocks, self.down(width) if level < len(s.widths) - 1 else None))
            channels = width
        return levels

    def middle(self, attends: bool = True) -> nn.ModuleList:
        width = self.settings.widths[-1]
        return nn.ModuleList([self.block(width, width, attends), self.block(width, width, attends=False)])

    def up_path(self) -> nn.ModuleList:
        """The decoder, whose blocks also receive the feature maps of the encoder, last one first."""
        s, skips = self.settings, [self.settings.base_channels]
        for level, width in enumerate(s.widths):
            skips += [width] * (s.num_res_blocks + (level < len(s.widths) - 1))
        levels, channels = nn.ModuleList(), s.widths[-1]
        for level, width in reversed(list(enumerate(s.widths))):
            inputs = [channels] + [width] * s.num_res_blocks
            blocks = [self.block(c + skips.pop(), width, level in s.attention_levels) for c in inputs]
            levels.append(Level(blocks, self.up(width) if level > 0 else None))
            channels = width
        return levels


def encode(down: nn.ModuleList, h: Tensor, emb: Tensor, tokens: Tensor | None = None) -> list[Tensor]:
    """All feature maps of the encoder: the input, then the output of each block and each downsampling."""
    maps = [h]
    for level in down:
        for block in level.blocks:
            maps.append(block(maps[-1], emb, tokens))
        if level.resample is not None:
            maps.append(level.resample(maps[-1], emb))
    return maps
