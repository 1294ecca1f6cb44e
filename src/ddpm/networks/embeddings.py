"""Embeddings of time (sinusoidal features and an MLP) and class (a table).

Ho et al. 2020, appendix B; classes as in Nichol and Dhariwal 2021.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.networks.layers import linear_layer

Waves = Callable[[Tensor, int], Tensor]
"""Maps times `[B]` and a number of channels to float32 `[B, channels]`."""


def sinusoid(time: Tensor, channels: int) -> Tensor:
    """Sinusoidal embedding, times `[B]` to float32 `[B, channels]`: sines, then cosines, wavelengths 2 pi to 10000 * 2
    pi.

    The convention of the published DDPM checkpoints.
    """
    half = channels // 2
    # Same order of operations as the published code, because an angle of 999 radians magnifies rounding errors.
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=time.device) / (half - 1))
    angles = time.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def cosinusoid(time: Tensor, channels: int) -> Tensor:
    """As `sinusoid`, with cosines first, and wavelengths that end one step before 10000 * 2 pi.

    The convention of the published checkpoints of Improved DDPM and ADM.
    """
    half = channels // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=time.device) / half)
    angles = time.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class TimeEmbedding(nn.Module):
    """Maps times `[B]` in 0..T-1, integer or not, to `[B, out_channels]`. scale: factor of the times."""

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
    """Class embeddings `[B, channels]` of `label`, int64 `[B]`; zeros for -1 (no class).

    They are multiplied by 0, because DDP expects a gradient of the table in each step, also without labels.
    """
    return table(label.clamp(min=0)) * (label >= 0)[:, None]
