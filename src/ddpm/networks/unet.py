"""The U-Net of Ho et al. 2020, appendix B, with what Nichol and Dhariwal 2021, Dhariwal and Nichol 2021 ("ADM") and
Chen et al. 2023 add to it.
"""

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.base import check
from ddpm.networks.conventions import CONVENTIONS
from ddpm.networks.embeddings import TimeEmbedding, rows_of
from ddpm.networks.layers import conv3x3, zero_init
from ddpm.networks.levels import BlockFactory, encode
from ddpm.networks.settings import check_settings, check_size


@final
class UNet(nn.Module):
    """`network(x, time) -> [B, out_channels, H, W]`; x, x0_guess: `[B, in_channels, H, W]`, time: `[B]` in 0..T-1.

    base_channels: width at full resolution; channel_mults: width of each level over that, finest first.
    num_res_blocks: per level on the way down; one more on the way up.
    attention_levels: numbers of the levels with attention, 0 = finest (any image size: at 32 x 32, level 1 is
    16 x 16). The middle always has it. num_heads: of each; head_channels: or heads of so many channels, more of them
    where a level is wider.
    patch_size: work on patches of p x p pixels as channels, which costs p^2 times less. Not in the paper; 1 = as there.
    scale_shift: the time scales and shifts in each block instead of being added (`ResBlock`).
    resample: the resolution changes by a convolution ("conv") or within a residual block more ("block", as in ADM).
    convention: "ddpm" or "adm", where the published programs differ and their papers do not (`Convention`).
    time_channels: of the time's waves, and a quarter of its embedding; None: base_channels.
    num_timesteps: T, where the network shall see time * 1000 / T, so that a time means the same noise under a schedule
    of another T (rescale_timesteps in the code of Nichol and Dhariwal); None: the time as it is.

    Its conditions, beside x_t and the time:
    self_condition: x0_guess, the x0 predicted last, goes in beside x, and zeros where there is none (Chen et al.
    2023, "Analog Bits").
    num_classes: label, int64 `[B]`, adds a vector of its class to the embedded time; -1 and no label at all add
    nothing. Labels beyond are refused on the CPU, and by torch's own assertion on a GPU, which nobody waits for.
    low_res: low_res `[B, in_channels, h, w]`, a small image, goes in beside x, resized bilinearly (ADM's upsamplers).
    token_channels: the pixels look at tokens `[B, N, token_channels]` behind every attention (`CrossAttention`).

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
        head_channels: int | None = None,
        num_groups: int = 32,
        patch_size: int = 1,
        scale_shift: bool = False,
        resample: str = "conv",
        convention: str = "ddpm",
        time_channels: int | None = None,
        num_timesteps: int | None = None,
        self_condition: bool = False,
        num_classes: int | None = None,
        low_res: bool = False,
        token_channels: int | None = None,
    ) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        self.settings = check_settings(
            in_channels=in_channels,
            base_channels=base_channels,
            channel_mults=channel_mults,
            num_res_blocks=num_res_blocks,
            attention_levels=attention_levels,
            out_channels=out_channels,
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
            self_condition=self_condition,
            num_classes=num_classes,
            low_res=low_res,
            token_channels=token_channels,
        )
        self.in_channels, self.out_channels, self.patch_size = in_channels, out_channels, patch_size
        self.self_condition, self.low_res = self_condition, low_res
        self.num_classes, self.token_channels = num_classes, token_channels
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
            token_channels=token_channels,
        )

        scale = 1000 / num_timesteps if num_timesteps else 1.0
        self.time = TimeEmbedding(time_channels, emb_channels, scale, kit.convention.waves)
        num_images = 1 + self_condition + low_res
        self.stem = conv3x3(num_images * in_channels * patch_size**2, base_channels)
        self.down = kit.down_path(base_channels, widths, num_res_blocks, attention_levels)
        self.middle = kit.middle(widths[-1])
        self.up = kit.up_path(base_channels, widths, num_res_blocks, attention_levels)
        self.norm = kit.norm(widths[0])
        self.out = zero_init(conv3x3(widths[0], out_channels * patch_size**2))
        # The last to be made: the others are drawn as in a network without classes.
        self.label = nn.Embedding(num_classes, emb_channels) if num_classes else None

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        x0_guess: Tensor | None = None,
        label: Tensor | None = None,
        low_res: Tensor | None = None,
        tokens: Tensor | None = None,
        **others: Tensor,
    ) -> Tensor:
        conditions = {"x0_guess": x0_guess, "label": label, "low_res": low_res, "tokens": tokens, **others}
        self._check_input(x)
        self._check_conditions(x, {name: tensor for name, tensor in conditions.items() if tensor is not None})
        emb = self.time(time)
        if self.label is not None:
            label = torch.full((len(x),), -1, device=x.device) if label is None else label
            emb = emb + rows_of(self.label, label).to(emb.dtype)
        emb = F.silu(emb)
        images = [x]
        if self.self_condition:
            images.append(torch.zeros_like(x) if x0_guess is None else x0_guess)
        if low_res is not None:
            images.append(F.interpolate(low_res.to(x.dtype), x.shape[2:], mode="bilinear"))
        x = torch.cat(images, dim=1)

        h = self.stem(F.pixel_unshuffle(x, self.patch_size))
        skips = encode(self.down, h, emb, tokens)
        h = skips[-1]

        for block in self.middle:
            h = block(h, emb, tokens)

        for level in self.up:
            for block in level.blocks:
                h = block(torch.cat([h, skips.pop()], dim=1), emb, tokens)
            if level.resample is not None:
                h = level.resample(h, emb)

        with torch.autocast(x.device.type, enabled=False):
            h = self.out(F.silu(self.norm(h.to(self.out.weight.dtype))))
        return F.pixel_shuffle(h, self.patch_size)

    def _check_input(self, x: Tensor) -> None:
        channels, *size = x.shape[1:]
        if channels != self.in_channels:
            raise ValueError(f"this U-Net has in_channels = {self.in_channels}, got images of {channels}")
        check_size(size, len(self.down), self.patch_size)

    def _check_conditions(self, x: Tensor, conditions: dict[str, Tensor]) -> None:
        takes = {
            "x0_guess": self.self_condition,
            "label": self.num_classes is not None,
            "low_res": self.low_res,
            "tokens": self.token_channels is not None,
        }
        if refused := sorted(name for name in conditions if not takes.get(name)):
            taken = [name for name, does in takes.items() if does]
            but = f" but {', '.join(taken)}" if taken else ""
            raise ValueError(f"this U-Net takes no conditions{but}, got {', '.join(refused)}")
        for name in ("low_res", "tokens"):
            if takes[name] and name not in conditions:
                raise ValueError(f"this U-Net needs the condition {name}, which it was not given")
        for name, tensor in conditions.items():
            CHECKS[name](self, x, tensor)


def _check_guess(network: UNet, x: Tensor, guess: Tensor) -> None:
    if guess.shape != x.shape:
        check.fail("x0_guess", [*guess.shape], f"of the images' shape {[*x.shape]}")


def _check_label(network: UNet, x: Tensor, label: Tensor) -> None:
    if label.shape != x.shape[:1] or label.dtype not in (torch.int64, torch.int32):
        check.fail("label", f"{label.dtype} {[*label.shape]}", f"integers, one for each of {len(x)} images")
    if label.device.type == "cpu" and not torch.compiler.is_compiling():  # elsewhere reading it would make all wait
        lowest, highest = label.aminmax()
        if lowest < -1 or highest >= network.num_classes:
            wrong = int(lowest if lowest < -1 else highest)
            check.fail("label", wrong, f"a class in 0..{network.num_classes - 1}, or -1 for none")


def _check_low_res(network: UNet, x: Tensor, low_res: Tensor) -> None:
    is_image = low_res.ndim == 4 and low_res.shape[:2] == x.shape[:2]
    if not is_image or any(small > large for small, large in zip(low_res.shape[2:], x.shape[2:], strict=True)):
        check.fail("low_res", [*low_res.shape], f"images of the shape {[*x.shape]} or smaller")


def _check_tokens(network: UNet, x: Tensor, tokens: Tensor) -> None:
    if tokens.ndim != 3 or len(tokens) != len(x) or tokens.shape[1] == 0 or tokens.shape[2] != network.token_channels:
        check.fail("tokens", [*tokens.shape], f"of the shape [{len(x)}, N, {network.token_channels}]")


CHECKS = {"x0_guess": _check_guess, "label": _check_label, "low_res": _check_low_res, "tokens": _check_tokens}
