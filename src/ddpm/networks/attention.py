"""Self-attention over pixels, cross-attention from pixels to tokens, and attention pooling."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.networks.layers import conv1x1, conv1x1_of, group_norm, linear_layer, zero_init


class Attention(nn.Module):
    """x + out(attention(norm(x))) over `[B, channels, H, W]` (Ho et al. 2020, appendix B).

    Queries, keys and values come from one 1x1 convolution, so that in channels_last no memory is rearranged.
    """

    def __init__(self, channels: int, num_heads: int, num_groups: int, *, norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = group_norm(num_groups, channels, norm_eps)
        self.qkv = conv1x1_of(3, channels)
        self.out = zero_init(conv1x1(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = by_head(self.qkv(self.norm(x)), self.num_heads)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(-2, -1)
        return x + self.out(mixed.reshape(x.shape))


class CrossAttention(nn.Module):
    """x + out(attention(norm(x), tokens)) (Rombach et al. 2022, section 3.3).

    x: `[B, channels, H, W]`. tokens: `[B, N, token_channels]`, any N, for example of a text. Queries come from pixels,
    keys and values from tokens. The result does not depend on the order of the tokens.
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
        q = by_row(self.query(self.norm(x)).flatten(2).unflatten(1, (self.num_heads, -1)).mT)  # [B, heads, HW, C/heads]
        tokens = tokens.to(self.key.weight.dtype)
        k, v = (each(tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2) for each in (self.key, self.value))
        mixed = F.scaled_dot_product_attention(q, k, v).mT  # [B, heads, C/heads, HW]
        return x + self.out(mixed.reshape(x.shape))


class AttentionPool(nn.Module):
    """Attention pooling, `[B, channels, H, W]` to `[B, out_channels]` (CLIP: Radford et al. 2021, section 2.3).

    The query is the mean over pixels, which is prepended to the pixels as a token. H x W must be num_pixels, because
    each pixel has a learned position.
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
        q, k, v = by_head(self.qkv(tokens[..., None]), self.num_heads)
        answer = F.scaled_dot_product_attention(q[:, :, :1], k, v).flatten(1)  # [B, C]
        return self.out(answer[:, :, None, None]).flatten(1)


def by_head(qkv: Tensor, num_heads: int) -> tuple[Tensor, ...]:
    """`[B, 3 C, H, W]` to queries, keys and values, each `[B, heads, HW, C/heads]`."""
    parts = qkv.flatten(2).unflatten(1, (3, num_heads, -1))  # [B, 3, heads, C/heads, HW]
    return by_row(parts.transpose(-2, -1)).unbind(1)


def by_row(x: Tensor) -> Tensor:
    """x `[..., N, D]` with the D values of each row side by side in memory, as fast attention kernels require.

    With N = 1, strides may be anything, and CUDA kernels refuse some.
    """
    return x if x.stride(-1) == 1 and x.shape[-2] > 1 else x.clone(memory_format=torch.contiguous_format)
