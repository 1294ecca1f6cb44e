"""The discriminator of denoising diffusion GANs (Xiao, Kreis and Vahdat 2022, appendix C): was x_s before x_t?"""

import itertools
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.base import check
from ddpm.networks.embeddings import TimeEmbedding, add_class
from ddpm.networks.fir import FIR
from ddpm.networks.layers import initialise_by_outputs
from ddpm.networks.settings import check_label


def activation(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def conv(in_channels: int, out_channels: int, side: int, gain: float = 1.0, bias: bool = True) -> nn.Conv2d:
    return initialise_by_outputs(nn.Conv2d(in_channels, out_channels, side, padding=side // 2, bias=bias), gain)


class DiscriminatorBlock(nn.Module):
    """(shortcut(x) + two times (LeakyReLU, convolution)) / sqrt(2), with the time added in between.

    halves: the resolution, by a filter before the shortcut and before the second convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, time_channels: int, halves: bool) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, 3)
        self.conv2 = conv(out_channels, out_channels, 3, gain=1e-10)
        self.time = initialise_by_outputs(nn.Linear(time_channels, out_channels))
        self.shortcut = conv(in_channels, out_channels, 1, bias=False)
        self.resize = FIR() if halves else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = activation(self.conv1(activation(x)) + self.time(emb)[:, :, None, None])
        return (self.conv2(self.resize(h)) + self.shortcut(self.resize(x))) * 0.5**0.5


@final
class DDGANDiscriminator(nn.Module):
    """`discriminator(x_s, time, x_t) -> [B]`: logits that x_s is real, x_t being what follows. Twice differentiable.

    x_s, x_t: `[B, in_channels, H, W]`, the image that is judged and the noisier one; time: `[B]` in 0..T-1, of x_s.
    channel_mults: widths over base_channels, of the first layer and then of each block. halving_blocks: the blocks,
    from 0, that halve the resolution; an odd side is rounded down.
    group_size: of `minibatch_deviation`; 1 switches it off. final_gain: of the last convolution's initial variance.
    patch_size: work on patches of p x p pixels as channels, as `UNet`; 1 in the paper.
    num_classes: label, int64 `[B]`, adds a vector of its class to the embedded time; -1 and no label add nothing.
    """

    def __init__(
        self,
        in_channels: int,
        base_channels: int,
        channel_mults: Sequence[int],
        halving_blocks: Sequence[int],
        *,
        time_channels: int = 256,
        group_size: int = 4,
        final_gain: float = 1.0,
        patch_size: int = 1,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = check.positive_int("in_channels", in_channels)
        self.patch_size = check.positive_int("patch_size", patch_size)
        self.group_size = check.positive_int("group_size", group_size)
        self.num_classes = check.positive_int_or_none("num_classes", num_classes)
        check.positive_int("base_channels", base_channels)
        widths = [base_channels * check.positive_int("channel_mults", mult) for mult in channel_mults]
        if len(widths) < 2:
            check.fail("channel_mults", channel_mults, "a number for the first layer and for at least one block")
        for block in halving_blocks:
            check.integer("halving_blocks", block, low=0, high=len(widths) - 2)
        if check.positive_int("time_channels", time_channels) < 4 or time_channels % 2:
            check.fail("time_channels", time_channels, "even and at least 4, since half of the waves are cosines")
        self.smallest_side = patch_size * 2 ** len(set(halving_blocks))

        self.time = TimeEmbedding(time_channels, time_channels, activation=activation)
        self.stem = conv(2 * in_channels * patch_size**2, widths[0], 1)
        pairs = enumerate(itertools.pairwise(widths))
        blocks = (DiscriminatorBlock(*pair, time_channels, halves=n in halving_blocks) for n, pair in pairs)
        self.blocks = nn.ModuleList(blocks)
        self.final = conv(widths[-1] + 1, widths[-1], 3, check.positive_number("final_gain", final_gain))
        self.out = initialise_by_outputs(nn.Linear(widths[-1], 1))
        self.label = nn.Embedding(num_classes, time_channels) if num_classes else None

    def forward(self, x_s: Tensor, time: Tensor, x_t: Tensor, label: Tensor | None = None) -> Tensor:
        if x_s.shape != x_t.shape:
            check.fail("x_s and x_t", [[*x_s.shape], [*x_t.shape]], "of one shape")
        self.check_images(x_s.shape[1:])
        check_label(label, len(x_s), self.num_classes)
        emb = activation(add_class(self.time(time), self.label, label))
        h = self.stem(F.pixel_unshuffle(torch.cat([x_s, x_t], dim=1), self.patch_size))
        for block in self.blocks:
            h = block(h, emb)
        with torch.autocast(h.device.type, enabled=False):
            h = h.to(self.out.weight.dtype)
            h = activation(self.final(torch.cat([h, minibatch_deviation(h, self.group_size)], dim=1)))
            return self.out(h.sum((2, 3)))[:, 0]

    def check_images(self, shape: Sequence[int]) -> None:
        """Raise ValueError unless the network takes images of the shape `(C, H, W)`."""
        if shape[0] != self.in_channels or min(shape[1:]) < self.smallest_side:
            takes = f"images of {self.in_channels} channels and at least {self.smallest_side} pixels a side"
            raise ValueError(f"this discriminator takes {takes}, got {[*shape]}")

    def check_batch(self, num_images: int) -> None:
        """Raise ValueError unless a micro-batch of so many images is one of full groups."""
        size_of_group(num_images, self.group_size)


def minibatch_deviation(x: Tensor, group_size: int) -> Tensor:
    """How much the samples of a group differ, as one more feature map `[B, 1, H, W]` (Karras et al. 2018, section 3).

    The mean over all features and pixels of their standard deviation in the group. Sample i lies in group i modulo
    B / group_size, as in the authors' code; fewer samples are one group. So a logit depends on the images beside it.
    """
    size = size_of_group(len(x), group_size)
    groups = x.unflatten(0, (size, -1))  # [size, B / size, C, H, W]
    deviation = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    return deviation.repeat(size)[:, None, None, None].expand(-1, 1, *x.shape[2:])


def size_of_group(num_images: int, group_size: int) -> int:
    """Images in each group of a micro-batch. Raises ValueError unless all groups are full."""
    size = min(group_size, num_images)
    if num_images % size:
        raise ValueError(
            f"a micro-batch of {num_images} images does not divide by adversary.group_size = {size}: choose "
            f"data.batch_size and trainer.accumulate_grad_batches so that each micro-batch of a device divides by "
            f"{size}, or adversary.group_size=1, which compares no images"
        )
    return size
