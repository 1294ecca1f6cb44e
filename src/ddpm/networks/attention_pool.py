"""A feature map as one vector: its mean asks all of its pixels (Radford et al. 2021, "CLIP", section 2.3)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.networks.layers import conv1x1, conv1x1_of


class AttentionPool(nn.Module):
    """`[B, channels, H, W]` to `[B, out_channels]`; H x W must be num_pixels, since each has a learned place.

    The mean is one token more, and the first; only its answer is looked at.
    """

    def __init__(self, channels: int, out_channels: int, num_heads: int, num_pixels: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.places = nn.Parameter(torch.randn(channels, 1 + num_pixels) / channels**0.5)
        self.qkv = conv1x1_of(3, channels)
        self.out = conv1x1(channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2)
        tokens = torch.cat([pixels.mean(2, keepdim=True), pixels], dim=2) + self.places  # [B, C, 1 + HW]
        qkv = self.qkv(tokens[..., None]).flatten(2).unflatten(1, (3, self.num_heads, -1))
        q, k, v = qkv.transpose(-2, -1).unbind(1)  # [B, heads, 1 + HW, C/heads]
        answer = F.scaled_dot_product_attention(q[:, :, :1], k, v).flatten(1)  # [B, C]
        return self.out(answer[:, :, None, None]).flatten(1)
