"""The levels of a U-Net: the blocks of each resolution, and the way from one to the next."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ddpm.networks.attention import Attention
from ddpm.networks.blocks import Downsample, ResBlock, Upsample
from ddpm.networks.conventions import Convention
from ddpm.networks.cross_attention import CrossAttention
from ddpm.networks.layers import group_norm

Resample = ResBlock | Downsample | Upsample


class AttentionBlock(nn.Module):
    """A residual block, then attention where there is some: between pixels, then of pixels to tokens."""

    def __init__(self, res: ResBlock, attention: Attention | None, cross: CrossAttention | None = None) -> None:
        super().__init__()
        self.res = res
        self.attention = attention or nn.Identity()
        self.cross = cross

    def forward(self, x: Tensor, emb: Tensor, tokens: Tensor | None = None) -> Tensor:
        h = self.attention(self.res(x, emb))
        return h if self.cross is None else self.cross(h, tokens)


class Level(nn.Module):
    """The blocks of one resolution and the way to the next. A container: `encode` and `UNet` walk through it."""

    def __init__(self, blocks: Iterable[AttentionBlock], resample: Resample | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resample = resample


@dataclass(frozen=True)
class BlockFactory:
    """Makes the parts of one network, which are alike but for their widths; see `UNet` for what each number means."""

    emb_channels: int
    dropout: float
    num_heads: int
    head_channels: int | None
    num_groups: int
    scale_shift: bool
    resample: str
    convention: Convention
    token_channels: int | None = None

    def norm(self, width: int) -> nn.GroupNorm:
        return group_norm(self.num_groups, width, self.convention.norm_eps)

    def heads(self, width: int) -> int:
        return width // self.head_channels if self.head_channels else self.num_heads

    def res(self, channels: int, width: int, resize: nn.Module | None = None) -> ResBlock:
        how = {"scale_shift": self.scale_shift, "norm_eps": self.convention.norm_eps, "resize": resize}
        return ResBlock(channels, width, self.emb_channels, self.dropout, self.num_groups, **how)

    def block(self, channels: int, width: int, attends: bool) -> AttentionBlock:
        eps = self.convention.norm_eps
        attention = cross = None
        if attends:
            attention = Attention(width, self.heads(width), self.num_groups, norm_eps=eps)
        if attends and self.token_channels:
            cross = CrossAttention(width, self.token_channels, self.heads(width), self.num_groups, norm_eps=eps)
        return AttentionBlock(self.res(channels, width), attention, cross)

    def down(self, width: int) -> Resample:
        if self.resample == "block":
            return self.res(width, width, nn.AvgPool2d(2))
        return Downsample(width, pads_both_sides=self.convention.pads_both_sides)

    def up(self, width: int) -> Resample:
        return self.res(width, width, nn.Upsample(scale_factor=2)) if self.resample == "block" else Upsample(width)

    def down_path(
        self, channels: int, widths: Sequence[int], num_res_blocks: int, attention_levels: Sequence[int]
    ) -> nn.ModuleList:
        """channels: of what goes in."""
        levels = nn.ModuleList()
        for level, width in enumerate(widths):
            inputs = [channels] + [width] * (num_res_blocks - 1)
            blocks = [self.block(c, width, level in attention_levels) for c in inputs]
            levels.append(Level(blocks, self.down(width) if level < len(widths) - 1 else None))
            channels = width
        return levels

    def middle(self, width: int) -> nn.ModuleList:
        return nn.ModuleList([self.block(width, width, attends=True), self.block(width, width, attends=False)])

    def up_path(
        self, channels: int, widths: Sequence[int], num_res_blocks: int, attention_levels: Sequence[int]
    ) -> nn.ModuleList:
        """channels: of what went into the way down, whose feature maps come in beside, the last one first."""
        skips = [channels]
        for level, width in enumerate(widths):
            skips += [width] * (num_res_blocks + (level < len(widths) - 1))
        levels, channels = nn.ModuleList(), widths[-1]
        for level, width in reversed(list(enumerate(widths))):
            inputs = [channels] + [width] * num_res_blocks
            blocks = [self.block(c + skips.pop(), width, level in attention_levels) for c in inputs]
            levels.append(Level(blocks, self.up(width) if level > 0 else None))
            channels = width
        return levels


def encode(down: nn.ModuleList, h: Tensor, emb: Tensor, tokens: Tensor | None = None) -> list[Tensor]:
    """All feature maps of the way down: what goes in, then each block's and each smaller one's."""
    maps = [h]
    for level in down:
        for block in level.blocks:
            maps.append(block(maps[-1], emb, tokens))
        if level.resample is not None:
            maps.append(level.resample(maps[-1], emb))
    return maps
