"""The U-Net of Ho et al. 2020, appendix B, with what Nichol and Dhariwal 2021, Dhariwal and Nichol 2021 ("ADM"),
Chen et al. 2023 and Rombach et al. 2022 ("latent diffusion") add to it.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.base import check
from ddpm.networks.embeddings import add_class
from ddpm.networks.layers import conv3x3, zero_init
from ddpm.networks.levels import BlockFactory, encode
from ddpm.networks.settings import UNetSettings, check_label, check_size


@final
class UNet(nn.Module):
    """`network(x, time) -> [B, out_channels, H, W]`; x, x0_guess: `[B, in_channels, H, W]`, time: `[B]` in 0..T-1.

    base_channels: width at full resolution; channel_mults: width of each level relative to it, finest level first.
    num_res_blocks: per level of the encoder; the decoder has one more.
    attention_levels: numbers of the levels with attention, 0 = finest (for 32 x 32 images, level 1 is 16 x 16). The
    middle block always has attention. num_heads: heads per attention; head_channels: alternatively, channels per head.
    transformer_depth: layers of self-attention, cross-attention and feed-forward in place of each attention (Rombach et
    al. 2022; `SpatialTransformer`); None: plain attention.
    patch_size: rearrange patches of p x p pixels to channels, which costs p^2 times less. Not in the paper (1 = none).
    scale_shift: the time embedding scales and shifts in each block instead of being added (`ResBlock`).
    resample: change the resolution by a convolution ("conv") or by an additional residual block ("block", as in ADM).
    convention: "ddpm" or "adm", for details in which the published programs differ (`Convention`).
    time_channels: number of sinusoidal time features, a quarter of the time embedding; None: base_channels.
    num_timesteps: T, if the network receives time * 1000 / T, so that a time has the same noise level for another T
    (rescale_timesteps in the code of Nichol and Dhariwal); None: the time is not rescaled.

    Conditions:
    self_condition: the input x0_guess, the previous prediction of x0 (default zeros), is concatenated to x (Chen et al.
    2023, "Analog Bits").
    num_classes: the input label, int64 `[B]`, adds a class embedding to the time embedding; -1 and None add nothing.
    Other labels raise ValueError on the CPU, and an asynchronous assertion of torch on a GPU.
    concat_channels: the input concat `[B, concat_channels, h, w]` is concatenated to x, enlarged bilinearly if it is
    smaller (ADM's upsamplers; Rombach et al. 2022); true: as many channels as x; false: there is no such input.
    token_channels: the input tokens `[B, N, token_channels]` is used by cross-attention after every self-attention.

    The other arguments are those of `UNetSettings`. H and W must be divisible by patch_size * 2^(levels - 1). Under
    autocast, the last norm and convolution stay float32.
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
        self_condition: bool = False,
        num_classes: int | None = None,
        concat_channels: bool | int = False,
        token_channels: int | None = None,
        **others: Any,
    ) -> None:
        super().__init__()
        settings = UNetSettings(in_channels, base_channels, channel_mults, num_res_blocks, attention_levels, **others)
        self.in_channels, self.out_channels = in_channels, in_channels if out_channels is None else out_channels
        self.self_condition, self.concat_channels = self_condition, concat_channels
        self.num_classes, self.token_channels = num_classes, token_channels
        own = {name: getattr(self, name) for name in ("out_channels", *CONDITIONS.values())}
        for name, value in own.items():
            if name == "self_condition":
                check.boolean(name, value)
            elif value is not None and not (name == "concat_channels" and isinstance(value, bool)):
                check.positive_int(name, value)
        self.settings = asdict(settings) | own
        self.patch_size = settings.patch_size
        factory = BlockFactory(settings, token_channels)

        self.time = factory.time()
        self.num_concat = in_channels if concat_channels is True else int(concat_channels)
        self.stem = factory.stem((1 + self_condition) * in_channels + self.num_concat)
        self.down, self.middle, self.up = factory.down_path(), factory.middle(), factory.up_path()
        self.norm = factory.norm(settings.widths[0])
        self.out = zero_init(conv3x3(settings.widths[0], self.out_channels * self.patch_size**2))
        # Created last, so that the other weights are initialized as in a network without classes.
        self.label = nn.Embedding(num_classes, factory.emb_channels) if num_classes else None

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        x0_guess: Tensor | None = None,
        label: Tensor | None = None,
        concat: Tensor | None = None,
        tokens: Tensor | None = None,
        **others: Tensor,
    ) -> Tensor:
        conditions = {"x0_guess": x0_guess, "label": label, "concat": concat, "tokens": tokens, **others}
        self.check_images(x.shape[1:])
        self._check_conditions(x, {name: tensor for name, tensor in conditions.items() if tensor is not None})
        emb = F.silu(add_class(self.time(time), self.label, label))
        images = [x]
        if self.self_condition:
            images.append(torch.zeros_like(x) if x0_guess is None else x0_guess)
        if concat is not None:
            images.append(F.interpolate(concat.to(x.dtype), x.shape[2:], mode="bilinear"))
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

    def check_images(self, shape: Sequence[int]) -> None:
        """Raise ValueError unless the network takes images of the shape `(C, H, W)`."""
        channels, *size = shape
        if channels != self.in_channels:
            raise ValueError(f"this U-Net has in_channels = {self.in_channels}, got images of {channels}")
        check_size(size, len(self.down), self.patch_size)

    def _check_conditions(self, x: Tensor, conditions: dict[str, Tensor]) -> None:
        taken = [name for name, setting in CONDITIONS.items() if getattr(self, setting)]
        if refused := sorted(conditions.keys() - set(taken)):
            but = f" but {', '.join(taken)}" if taken else ""
            raise ValueError(f"this U-Net takes no conditions{but}, got {', '.join(refused)}")
        for name in ("concat", "tokens"):
            if name in taken and name not in conditions:
                raise ValueError(f"this U-Net needs the condition {name}, which is missing")
        guess, label, concat, tokens = (conditions.get(name) for name in CONDITIONS)
        if guess is not None and guess.shape != x.shape:
            check.fail("x0_guess", [*guess.shape], f"of the images' shape {[*x.shape]}")
        check_label(label, len(x), self.num_classes)
        if concat is not None:
            largest = [len(x), self.num_concat, *x.shape[2:]]
            is_image = concat.ndim == 4 and [*concat.shape[:2]] == largest[:2]
            if not is_image or any(small > large for small, large in zip(concat.shape[2:], x.shape[2:], strict=True)):
                check.fail("concat", [*concat.shape], f"images of the shape {largest} or smaller")
        if tokens is not None:
            ends = len(x), self.token_channels
            if tokens.ndim != 3 or tokens.shape[::2] != ends or tokens.shape[1] == 0:
                check.fail("tokens", [*tokens.shape], f"of the shape [{ends[0]}, N, {ends[1]}]")


class AroundUNet(nn.Module):
    """A network that gives its `unet` one more condition."""

    unet: UNet

    @property
    def in_channels(self) -> int:
        return self.unet.in_channels

    @property
    def out_channels(self) -> int:
        return self.unet.out_channels

    @property
    def self_condition(self) -> bool:
        return self.unet.self_condition

    def check_images(self, shape: Sequence[int]) -> None:
        self.unet.check_images(shape)


CONDITIONS = {
    **{"x0_guess": "self_condition", "label": "num_classes"},
    **{"concat": "concat_channels", "tokens": "token_channels"},
}
"""The conditions of a U-Net, and the setting that enables each."""
