"""Spatial transformers: self-attention, cross-attention and feed-forward over the pixels of a feature map.

Rombach et al. 2022, section 3.3 and appendix E.2. The order of the three is that of the authors' code.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.networks.layers import conv1x1, group_norm, linear_layer, zero_init


class MultiHeadAttention(nn.Module):
    """out(softmax(q k^T / sqrt(d)) v), `[B, N, channels]` (Vaswani et al. 2017, section 3.2).

    x: `[B, N, channels]`, of which the queries are; context: `[B, M, context_channels]`, of which keys and values are.
    Queries, keys and values have no bias. head_channels: d; None: channels / num_heads.
    """

    def __init__(self, channels: int, context_channels: int, num_heads: int, head_channels: int | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        inner = num_heads * head_channels if head_channels else channels
        self.query = linear_layer(channels, inner, bias=False)
        self.key, self.value = (linear_layer(context_channels, inner, bias=False) for _ in range(2))
        self.out = linear_layer(inner, channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        projected = self.query(x), self.key(context), self.value(context)
        q, k, v = (each.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for each in projected)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    """project(a * gelu(b)) with (a, b) = expand(x), each 4 times as wide as x (Shazeer 2020, eq. 6)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = linear_layer(channels, 8 * channels)
        self.project = linear_layer(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.expand(x).chunk(2, dim=2)
        return self.project(a * F.gelu(b))


def feed_forward(channels: int) -> nn.Sequential:
    """project(gelu(expand(x))), where expand(x) is 4 times as wide as x, without the gate of `GEGLU`."""
    return nn.Sequential(linear_layer(channels, 4 * channels), nn.GELU(), linear_layer(4 * channels, channels))


class TransformerLayer(nn.Module):
    """x + f(layer_norm(x)) for f = self-attention, cross-attention to tokens, feed-forward; x: `[B, N, channels]`.

    token_channels: size of the tokens `[B, M, token_channels]`; None: there is no cross-attention. head_channels: of
    self-attention. feed_forward: makes it for a number of channels.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        token_channels: int | None,
        head_channels: int | None = None,
        feed_forward: Callable[[int], nn.Module] = GEGLU,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = MultiHeadAttention(channels, channels, num_heads, head_channels)
        self.norm2 = nn.LayerNorm(channels) if token_channels else nn.Identity()
        self.cross = MultiHeadAttention(channels, token_channels, num_heads) if token_channels else None
        self.norm3 = nn.LayerNorm(channels)
        self.feed_forward = feed_forward(channels)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        h = self.norm1(x)
        x = x + self.attention(h, h)
        if self.cross is not None:
            x = x + self.cross(self.norm2(x), tokens)
        return x + self.feed_forward(self.norm3(x))


class SpatialTransformer(nn.Module):
    """x + proj_out(layers(proj_in(norm(x)), tokens)) over x: `[B, channels, H, W]`; proj_out starts at 0.

    The pixels are a set of H W vectors without positions. depth: number of layers. The eps of the group norm is 1e-6,
    whatever that of the other norms is, as in the authors' code.
    """

    def __init__(self, channels: int, num_heads: int, num_groups: int, depth: int, token_channels: int | None) -> None:
        super().__init__()
        self.norm = group_norm(num_groups, channels, eps=1e-6)
        self.proj_in = conv1x1(channels, channels)
        self.layers = nn.ModuleList(TransformerLayer(channels, num_heads, token_channels) for _ in range(depth))
        self.proj_out = zero_init(conv1x1(channels, channels))

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        h = self.proj_in(self.norm(x)).flatten(2).mT  # [B, HW, C]
        tokens = None if tokens is None else tokens.to(self.proj_in.weight.dtype)
        for layer in self.layers:
            h = layer(h, tokens)
        return x + self.proj_out(h.mT.unflatten(2, x.shape[2:]))
