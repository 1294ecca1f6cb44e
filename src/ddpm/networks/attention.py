"""Self-attention between the pixels of a feature map. Ho et al. 2020, appendix B."""

import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.networks.layers import conv1x1, conv1x1_of, group_norm, zero_init


class Attention(nn.Module):
    """x + out(attention(norm(x))) over `[B, channels, H, W]`.

    Queries, keys and values come from one 1x1 convolution: in channels_last no pixel is moved between it, the
    attention and the convolution behind.
    """

    def __init__(self, channels: int, num_heads: int, num_groups: int, *, norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = group_norm(num_groups, channels, norm_eps)
        self.qkv = conv1x1_of(3, channels)
        self.out = zero_init(conv1x1(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.num_heads, -1))  # [B, 3, heads, C/heads, HW]
        q, k, v = qkv.transpose(-2, -1).unbind(1)  # [B, heads, HW, C/heads]
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(-2, -1)
        return x + self.out(mixed.reshape(x.shape))
