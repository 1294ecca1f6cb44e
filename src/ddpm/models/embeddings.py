"""The time as a vector: sines and cosines of many frequencies, then a small MLP. Ho et al. 2020, appendix B."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.models.layers import linear


def sinusoid(time: Tensor, channels: int) -> Tensor:
    """`[B]` times to float32 `[B, channels]`: all sines, then all cosines, wavelengths 2 pi to 10000 * 2 pi.

    The convention of the published DDPM checkpoints; other families put cosines first or end just short of 10000.
    """
    half = channels // 2
    # Rounded in the order of the published code: an angle of 999 radians magnifies the last bit of its frequency.
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=time.device) / (half - 1))
    angles = time.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class TimeEmbedding(nn.Module):
    """`[B]` times 0..T-1, whole or not, to `[B, out_channels]`. scale: what a time is multiplied by beforehand."""

    def __init__(self, channels: int, out_channels: int, scale: float = 1.0) -> None:
        super().__init__()
        self.channels, self.scale = channels, scale
        self.linear1 = linear(channels, out_channels)
        self.linear2 = linear(out_channels, out_channels)

    def forward(self, time: Tensor) -> Tensor:
        waves = sinusoid(time * self.scale, self.channels).to(self.linear1.weight.dtype)
        return self.linear2(F.silu(self.linear1(waves)))
