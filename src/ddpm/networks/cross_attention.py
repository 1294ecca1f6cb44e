"""Attention of the pixels of a feature map to tokens, as of a text. Rombach et al. 2022, section 3.3."""

import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.networks.layers import conv1x1, group_norm, linear_layer, zero_init


class CrossAttention(nn.Module):
    """x + out(attention(norm(x), tokens)); x: `[B, channels, H, W]`, tokens: `[B, N, token_channels]`, N any.

    Each pixel asks, all tokens answer; the order of the tokens tells nothing but what they say themselves.
    """

    def __init__(
        self, channels: int, token_channels: int, num_heads: int, num_groups: int, *, norm_eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = group_norm(num_groups, channels, norm_eps)
        self.query = conv1x1(channels, channels)
        self.key, self.value = linear_layer(token_channels, channels), linear_layer(token_channels, channels)
        self.out = zero_init(conv1x1(channels, channels))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        q = self.query(self.norm(x)).flatten(2).unflatten(1, (self.num_heads, -1)).mT  # [B, heads, HW, C/heads]
        tokens = tokens.to(self.key.weight.dtype)
        k, v = (each(tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2) for each in (self.key, self.value))
        mixed = F.scaled_dot_product_attention(q, k, v).mT  # [B, heads, C/heads, HW]
        return x + self.out(mixed.reshape(x.shape))
