"""The discriminator of denoising diffusion GANs (Xiao et al. 2022, appendix C.1): is x_s what came before x_t?"""

import itertools
import math
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.base import check
from ddpm.networks.embeddings import rows_of, sinusoid
from ddpm.networks.fir import FIRDownsample
from ddpm.networks.layers import conv1x1, conv3x3, initialise, linear_layer

SLOPE = 0.2


def activation(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


class AdversaryBlock(nn.Module):
    """(shortcut(x) + two times (LeakyReLU, convolution)) / sqrt 2, with the time added in between.

    halves: the resolution of both branches, by the low-pass filter between the two convolutions. x: `[B, in_channels,
    H, W]`, emb: `[B, emb_channels]`.
    """

    def __init__(self, in_channels: int, out_channels: int, emb_channels: int, halves: bool) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels)
        self.time = linear_layer(emb_channels, out_channels)
        self.resize = FIRDownsample() if halves else nn.Identity()
        self.conv2 = conv3x3(out_channels, out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        nn.init.xavier_uniform_(self.shortcut.weight)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(activation(x)) + self.time(emb)[:, :, None, None]
        h = self.conv2(self.resize(activation(h)))
        return (self.shortcut(self.resize(x)) + h) / math.sqrt(2)


@final
class DDGANAdversary(nn.Module):
    """`adversary(x_s, time, x_t) -> [B]` logits that x_s is real.

    x_s, x_t: `[B, in_channels, H, W]`; time: `[B]`, s counted from 0. channels: the width after the first layer and
    after each block; halving: the numbers of the blocks, from 0, that halve the resolution. emb_channels: of the
    embedded time. patch_size: look at patches of p x p pixels as channels, as of `UNet`.
    group_size: samples over which the standard deviation of features is shown to the last convolution (Karras et al.
    2018, section 3); 1 shows none. Each micro-batch must divide by it.
    num_classes: label, int64 `[B]`, adds a vector of its class to the embedded time; -1 and no label add nothing.
    last_gain: of the initial weights of the last convolution; 1e-5 in the published small network, 1 in the large one.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        halving: Sequence[int],
        emb_channels: int,
        *,
        group_size: int = 4,
        patch_size: int = 1,
        last_gain: float = 1.0,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        check.positive_int("in_channels", in_channels)
        if not isinstance(channels, Sequence) or isinstance(channels, str) or len(channels) < 2:
            check.fail("channels", channels, "a list of two widths or more, as [128, 128, 256]")
        for value in channels:
            check.positive_int("channels", value)
        for number in halving:
            check.integer("halving", number, low=0, high=len(channels) - 2)
        if check.positive_int("emb_channels", emb_channels) < 4 or emb_channels % 2:
            check.fail("emb_channels", emb_channels, "even and at least 4, since half of the waves are cosines")
        self.emb_channels, self.group_size = emb_channels, check.positive_int("group_size", group_size)
        self.patch_size, self.num_classes = check.positive_int("patch_size", patch_size), num_classes

        self.time1, self.time2 = (linear_layer(emb_channels, emb_channels) for _ in range(2))
        self.stem = conv1x1(2 * in_channels * patch_size**2, channels[0])
        pairs = enumerate(itertools.pairwise(channels))
        self.blocks = nn.ModuleList(AdversaryBlock(c, d, emb_channels, i in halving) for i, (c, d) in pairs)
        self.last = initialise(nn.Conv2d(channels[-1] + (group_size > 1), channels[-1], kernel_size=3, padding=1))
        self.last.weight.data *= last_gain
        self.out = linear_layer(channels[-1], 1)
        self.label = nn.Embedding(num_classes, emb_channels) if num_classes else None

    def forward(self, x_s: Tensor, time: Tensor, x_t: Tensor, label: Tensor | None = None) -> Tensor:
        waves = sinusoid(time, self.emb_channels).to(self.out.weight.dtype)
        emb = self.time2(activation(self.time1(waves)))
        if self.label is not None and label is not None:
            emb = emb + rows_of(self.label, label).to(emb.dtype)
        emb = activation(emb)
        h = self.stem(F.pixel_unshuffle(torch.cat([x_s, x_t], dim=1), self.patch_size))
        for block in self.blocks:
            h = block(h, emb)
        h = activation(h)
        if self.group_size > 1:
            h = torch.cat([h, minibatch_deviation(h, self.group_size)], dim=1)
        return self.out(activation(self.last(h)).sum((2, 3)))[:, 0]


def minibatch_deviation(x: Tensor, group_size: int) -> Tensor:
    """`[B, 1, H, W]`: the mean over features and pixels of their standard deviation within a group of samples.

    Sample i belongs to group i modulo B / group_size, as in the published program; a batch that is smaller than a group
    is one. So what a sample is told depends on the others of its micro-batch. ValueError if the groups are not full.
    """
    group_size = min(group_size, len(x))
    if len(x) % group_size:
        raise ValueError(
            f"a micro-batch of {len(x)} does not divide by adversary.group_size={group_size}: choose data.batch_size, "
            "trainer.devices and trainer.accumulate_grad_batches so that it does, or adversary.group_size=1"
        )
    groups = x.view(group_size, -1, *x.shape[1:])
    deviation = (groups.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))  # of each group
    return deviation.repeat(group_size)[:, None, None, None].expand(-1, 1, *x.shape[2:])
