"""The U-Net of Ho et al. 2020, appendix B, with what Nichol and Dhariwal 2021 and Chen et al. 2023 add to it."""

from collections.abc import Iterable, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm import check
from ddpm.models.attention import Attention
from ddpm.models.blocks import Downsample, ResBlock, Upsample
from ddpm.models.embeddings import TimeEmbedding
from ddpm.models.layers import conv3x3, group_norm, zeroed

MAX_RES_BLOCKS, MAX_LEVELS = 64, 12  # beyond any U-Net; a setting out of a file must not build blocks without end


class Block(nn.Module):
    """A residual block, then attention where there is some."""

    def __init__(self, res: ResBlock, attention: Attention | None) -> None:
        super().__init__()
        self.res = res
        self.attention = attention or nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.attention(self.res(x, emb))


class Level(nn.Module):
    """The blocks of one resolution and the way to the next. A container: `UNet.forward` walks through it."""

    def __init__(self, blocks: Iterable[Block], resample: Downsample | Upsample | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resample = resample


@final
class UNet(nn.Module):
    """`network(x, time) -> [B, out_channels, H, W]`; x, x0_guess: `[B, in_channels, H, W]`, time: `[B]` in 0..T-1.

    base_channels: width at full resolution; channel_mults: width of each level over that, finest first.
    num_res_blocks: per level on the way down; one more on the way up.
    attention_levels: numbers of the levels with attention, 0 = finest (any image size: at 32 x 32, level 1 is
    16 x 16). The middle always has it.
    patch_size: work on patches of p x p pixels as channels, which costs p^2 times less. Not in the paper; 1 = as there.
    scale_shift: the time scales and shifts in each block instead of being added (`ResBlock`).
    num_timesteps: T, where the network shall see time * 1000 / T, so that a time means the same noise under a schedule
    of another T (rescale_timesteps in the code of Nichol and Dhariwal); None: the time as it is.
    self_condition: x0_guess, the x0 predicted last, goes in beside x, and zeros where there is none (Chen et al.
    2023, "Analog Bits").
    H and W must divide by patch_size * 2^(levels - 1). Under autocast the last norm and convolution stay float32.
    """

    def __init__(
        self,
        in_channels: int,
        base_channels: int,
        channel_mults: Sequence[int],
        num_res_blocks: int,
        attention_levels: Sequence[int] = (),
        *,
        out_channels: int | None = None,
        dropout: float = 0.0,
        num_heads: int = 1,
        num_groups: int = 32,
        patch_size: int = 1,
        scale_shift: bool = False,
        num_timesteps: int | None = None,
        self_condition: bool = False,
    ) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        self.settings = _checked(
            in_channels=in_channels,
            base_channels=base_channels,
            channel_mults=channel_mults,
            num_res_blocks=num_res_blocks,
            attention_levels=attention_levels,
            out_channels=out_channels,
            dropout=dropout,
            num_heads=num_heads,
            num_groups=num_groups,
            patch_size=patch_size,
            scale_shift=scale_shift,
            num_timesteps=num_timesteps,
            self_condition=self_condition,
        )
        self.in_channels, self.out_channels, self.patch_size = in_channels, out_channels, patch_size
        self.self_condition = self_condition
        widths = [base_channels * mult for mult in channel_mults]
        coarsest = len(widths) - 1
        emb_channels = 4 * base_channels

        def block(channels: int, width: int, attends: bool) -> Block:
            attention = Attention(width, num_heads, num_groups) if attends else None
            res = ResBlock(channels, width, emb_channels, dropout, num_groups, scale_shift=scale_shift)
            return Block(res, attention)

        self.time = TimeEmbedding(base_channels, emb_channels, scale=1000 / num_timesteps if num_timesteps else 1.0)
        self.stem = conv3x3((2 if self_condition else 1) * in_channels * patch_size**2, base_channels)

        self.down = nn.ModuleList()
        channels, skips = base_channels, [base_channels]  # of h, and of every h that is kept for the way up
        for level, width in enumerate(widths):
            inputs = [channels] + [width] * (num_res_blocks - 1)
            blocks = [block(c, width, level in attention_levels) for c in inputs]
            self.down.append(Level(blocks, Downsample(width) if level < coarsest else None))
            skips += [width] * (num_res_blocks + (level < coarsest))
            channels = width

        self.middle = nn.ModuleList([block(channels, channels, attends=True), block(channels, channels, attends=False)])

        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            inputs = [channels] + [width] * num_res_blocks
            blocks = [block(c + skips.pop(), width, level in attention_levels) for c in inputs]
            self.up.append(Level(blocks, Upsample(width) if level > 0 else None))
            channels = width

        self.norm = group_norm(num_groups, channels)
        self.out = zeroed(conv3x3(channels, out_channels * patch_size**2))

    def forward(self, x: Tensor, time: Tensor, x0_guess: Tensor | None = None, **cond: Tensor) -> Tensor:
        self._check_input(x)
        self._check_conditions(x, x0_guess, cond)
        emb = F.silu(self.time(time))
        if self.self_condition:
            x = torch.cat([x, torch.zeros_like(x) if x0_guess is None else x0_guess], dim=1)

        h = self.stem(F.pixel_unshuffle(x, self.patch_size))
        skips = [h]
        for level in self.down:
            for block in level.blocks:
                h = block(h, emb)
                skips.append(h)
            if level.resample is not None:
                h = level.resample(h)
                skips.append(h)

        for block in self.middle:
            h = block(h, emb)

        for level in self.up:
            for block in level.blocks:
                h = block(torch.cat([h, skips.pop()], dim=1), emb)
            if level.resample is not None:
                h = level.resample(h)

        with torch.autocast(x.device.type, enabled=False):
            h = self.out(F.silu(self.norm(h.to(self.out.weight.dtype))))
        return F.pixel_shuffle(h, self.patch_size)

    def _check_input(self, x: Tensor) -> None:
        channels, *size = x.shape[1:]
        if channels != self.in_channels:
            raise ValueError(f"this U-Net has in_channels = {self.in_channels}, got images of {channels}")
        divisor = self.patch_size * 2 ** (len(self.down) - 1)
        if any(side % divisor for side in size):
            smaller = " x ".join(str(max(side // divisor, 1) * divisor) for side in size)
            larger = " x ".join(str(-(-side // divisor) * divisor) for side in size)
            raise ValueError(
                f"image size {' x '.join(map(str, size))} does not divide by {divisor} = patch_size * 2^(levels - 1); "
                f"resize or pad the images to {smaller} or {larger}, or use fewer levels (channel_mults)"
            )

    def _check_conditions(self, x: Tensor, x0_guess: Tensor | None, others: dict[str, Tensor]) -> None:
        taken = " but x0_guess" if self.self_condition else ""
        refused = [*others] if taken or x0_guess is None else [*others, "x0_guess"]
        if refused:
            raise ValueError(f"this U-Net takes no conditions{taken}, got {', '.join(sorted(refused))}")
        if x0_guess is not None and x0_guess.shape != x.shape:
            check.fail("x0_guess", [*x0_guess.shape], f"of the images' shape {[*x.shape]}")


def _checked(**settings: Any) -> dict[str, Any]:
    """The settings as plain values, or a ValueError about the first that cannot be."""
    for name, value in settings.items():
        if name in ("channel_mults", "attention_levels"):
            if not isinstance(value, Sequence) or isinstance(value, str):
                check.fail(name, value, "a list of integers")
            settings[name] = list(value)
        elif name == "dropout":
            check.number(name, value, low=0.0, high=1.0)
        elif name in ("scale_shift", "self_condition"):
            check.boolean(name, value)
        elif name != "num_timesteps" or value is not None:
            check.positive_int(name, value)

    check.integer("num_res_blocks", settings["num_res_blocks"], 1, MAX_RES_BLOCKS)
    mults, levels = settings["channel_mults"], settings["attention_levels"]
    if not mults:
        check.fail("channel_mults", mults, "a list of one integer per level, such as [1, 2, 2]")
    if len(mults) > MAX_LEVELS:
        check.fail("channel_mults", f"{len(mults)} numbers", f"at most {MAX_LEVELS}: each level halves the image")
    for mult in mults:
        check.positive_int("channel_mults", mult)
    for level in levels:
        check.integer("attention_levels", level, low=0, high=len(mults) - 1)

    base, groups, heads = settings["base_channels"], settings["num_groups"], settings["num_heads"]
    if base < 4 or base % 2 or base % groups:
        check.fail("base_channels", base, f"even, at least 4 and a multiple of num_groups = {groups}")
    for width in {base * mults[level] for level in (*levels, -1)}:
        if width % heads:
            check.fail("num_heads", heads, f"a divisor of {width}, the width of a level with attention")
    return settings
