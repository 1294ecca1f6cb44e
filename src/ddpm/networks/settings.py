"""Settings shared by U-Net and classifier, and checks of settings and inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from ddpm.base import check
from ddpm.base.memory import require_memory
from ddpm.networks.conventions import CONVENTIONS

BLOCK_BYTES = 2**15  # memory of the Python objects of a residual block


@dataclass(frozen=True)
class UNetSettings:
    """Settings of the levels of a U-Net; `UNet` describes them. Raises ValueError for the first invalid one."""

    in_channels: check.PositiveInt
    base_channels: check.PositiveInt
    channel_mults: Sequence[int]
    num_res_blocks: check.PositiveInt
    attention_levels: Sequence[int] = ()
    dropout: check.Share = 0.0
    num_heads: check.PositiveInt = 1
    head_channels: check.PositiveInt | None = None
    transformer_depth: check.PositiveInt | None = None
    num_groups: check.PositiveInt = 32
    patch_size: check.PositiveInt = 1
    scale_shift: bool = False
    resample: Annotated[str, check.words("conv", "block")] = "conv"
    convention: Annotated[str, check.words(*CONVENTIONS)] = "ddpm"
    time_channels: check.PositiveInt | None = None
    num_timesteps: check.PositiveInt | None = None

    def __post_init__(self) -> None:
        for name in ("channel_mults", "attention_levels"):
            value = getattr(self, name)
            if not isinstance(value, Sequence) or isinstance(value, str):
                check.fail(name, value, "a list of integers")
            object.__setattr__(self, name, list(value))
        check.fields(self)
        self._check_levels()

    def _check_levels(self) -> None:
        mults = self.channel_mults
        if not mults:
            check.fail("channel_mults", mults, "a list of one integer per level, such as [1, 2, 2]")
        blocks, depth = self.num_res_blocks, self.transformer_depth or 0
        stated = f"num_res_blocks = {blocks}" + (f" and transformer_depth = {depth}" if depth else "")
        require_memory(blocks * len(mults) * (1 + depth) * BLOCK_BYTES, f"a network of {stated}")
        for mult in mults:
            check.positive_int("channel_mults", mult)
        for level in self.attention_levels:
            check.integer("attention_levels", level, low=0, high=len(mults) - 1)

        base, time, groups = self.base_channels, self.time_channels, self.num_groups
        if base < 4 or base % 2 or base % groups:
            check.fail("base_channels", base, f"even, at least 4 and a multiple of num_groups = {groups}")
        if time is not None and (time < 4 or time % 2):
            check.fail("time_channels", time, "even and at least 4, because half of the time features are cosines")
        if self.head_channels is not None and self.num_heads != 1:
            check.fail("num_heads", self.num_heads, "1 with head_channels, which determines the number of heads")
        name = "num_heads" if self.head_channels is None else "head_channels"
        for width in {base * mults[level] for level in (*self.attention_levels, -1)}:
            if width % getattr(self, name):
                check.fail(name, getattr(self, name), f"a divisor of {width}, the width of a level with attention")

    @property
    def widths(self) -> list[int]:
        return [self.base_channels * mult for mult in self.channel_mults]

    def heads(self, width: int) -> int:
        return width // self.head_channels if self.head_channels else self.num_heads


def check_size(size: Sequence[int], num_levels: int, patch_size: int) -> None:
    """size: height and width of an image."""
    divisor = patch_size * 2 ** (num_levels - 1)
    if any(side % divisor for side in size):
        down = [max(side // divisor, 1) * divisor for side in size]
        sizes = {" x ".join(map(str, each)): None for each in (down, [-(-side // divisor) * divisor for side in size])}
        raise ValueError(
            f"image size {' x '.join(map(str, size))} is not divisible by {divisor} = patch_size * 2^(levels - 1); "
            f"resize or pad the images to {' or '.join(sizes)}, or use fewer levels (channel_mults)"
        )


def check_input(network: str, x: Tensor, shape: tuple[int, ...], cond: dict[str, Tensor]) -> None:
    """Check the input of a network for images of one shape (C, H, W) without conditions."""
    if cond:
        raise ValueError(f"this {network} takes no conditions, got {', '.join(sorted(cond))}")
    if x.shape[1:] != shape:
        takes, got = (" x ".join(map(str, each)) for each in (shape, x.shape[1:]))
        raise ValueError(f"this {network} takes images of {takes} (in_channels, size), got {got}")


def check_label(label: Tensor | None, num_images: int, num_classes: int | None) -> None:
    """num_classes: that the network knows; None: it takes no label."""
    if label is None:
        return
    if num_classes is None:
        raise ValueError("this network knows no classes (num_classes), and got a label")
    if label.shape != (num_images,) or label.dtype not in (torch.int64, torch.int32):
        check.fail("label", f"{label.dtype} {[*label.shape]}", f"integers, one for each of {num_images} images")
    last = num_classes - 1
    check_numbers("label", label, -1, last, f"a class in 0..{last}, or -1 for none")


def check_latent(latent: Tensor | None, num_images: int, channels: int) -> None:
    if latent is None:
        raise ValueError(
            "the generator models a distribution, not a mean: it needs a latent at each step, so what needs the mean "
            "of x0 (an ODE solver, a likelihood, a regression) cannot use it"
        )
    if latent.shape != (num_images, channels):
        check.fail("latent", [*latent.shape], f"of the shape {[num_images, channels]}, as latent_channels has it")


def check_numbers(name: str, numbers: Tensor, low: int, high: int, must_be: str) -> None:
    """Raise ValueError unless all are in low..high. Checked only on the CPU, because it would synchronize a GPU.

    The tensors of a dry run have no values to check.
    """
    has_values = not torch.compiler.is_compiling() and not isinstance(numbers, FakeTensor)
    if numbers.device.type == "cpu" and has_values:
        lowest, highest = numbers.aminmax()
        if lowest < low or highest > high:
            check.fail(name, int(lowest if lowest < low else highest), must_be)
