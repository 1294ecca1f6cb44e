"""Time and class as vectors: sines and cosines of many frequencies through a small MLP; a row of a table.

Ho et al. 2020, appendix B; classes as in Nichol and Dhariwal 2021.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.networks.layers import linear_layer

Waves = Callable[[Tensor, int], Tensor]
"""`[B]` times and a number of channels to float32 `[B, channels]`."""


def sinusoid(time: Tensor, channels: int) -> Tensor:
    """`[B]` times to float32 `[B, channels]`: all sines, then all cosines, wavelengths 2 pi to 10000 * 2 pi.

    The convention of the published DDPM checkpoints.
    """
    half = channels // 2
    # Rounded in the order of the published code: an angle of 999 radians magnifies the last bit of its frequency.
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=time.device) / (half - 1))
    angles = time.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def cosinusoid(time: Tensor, channels: int) -> Tensor:
    """The same with all cosines first, and wavelengths that end one short of 10000 * 2 pi.

    The convention of the published checkpoints of Improved DDPM and ADM.
    """
    half = channels // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=time.device) / half)
    angles = time.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class TimeEmbedding(nn.Module):
    """`[B]` times 0..T-1, whole or not, to `[B, out_channels]`. scale: what a time is multiplied by beforehand."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        scale: float = 1.0,
        waves: Waves = sinusoid,
        activation: Callable[[Tensor], Tensor] = F.silu,
    ) -> None:
        super().__init__()
        self.channels, self.scale, self.waves, self.activation = channels, scale, waves, activation
        self.linear1 = linear_layer(channels, out_channels)
        self.linear2 = linear_layer(out_channels, out_channels)

    def forward(self, time: Tensor) -> Tensor:
        waves = self.waves(time * self.scale, self.channels).to(self.linear1.weight.dtype)
        return self.linear2(self.activation(self.linear1(waves)))


def add_class(vectors: Tensor, table: nn.Embedding | None, label: Tensor | None) -> Tensor:
    """`[B, channels]` vectors plus those of the classes `label`. No label is -1, and no table adds nothing."""
    if table is None:
        return vectors
    label = torch.full((len(vectors),), -1, device=vectors.device) if label is None else label
    return vectors + rows_of(table, label).to(vectors.dtype)


def rows_of(table: nn.Embedding, label: Tensor) -> Tensor:
    """The vectors of the classes `label`, int64 `[B]`, as `[B, channels]`: zeros for -1, which is no class.

    Multiplied by 0 instead of left out: DDP waits for a gradient of the table in each step, also without labels.
    """
    return table(label.clamp(min=0)) * (label >= 0)[:, None]
