"""Building blocks of a U-Net: residual blocks, down- and upsampling. Ho et al. 2020, appendix B."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.networks.layers import conv1x1, conv3x3, group_norm, initialise, linear_layer, zero_init


class ResBlock(nn.Module):
    """shortcut(x) + two times (norm, SiLU, convolution), with the time embedding added in between.

    scale_shift: the time embedding instead scales and shifts the output of the second norm, norm(h) * (1 + scale) +
    shift (Nichol and Dhariwal 2021, appendix A; "adaptive group normalization" in Dhariwal and Nichol 2021, eq. 3).
    resize: `nn.AvgPool2d(2)` or `nn.Upsample(scale_factor=2)`, applied to both branches after the first norm and SiLU
    (as in BigGAN, Brock et al. 2019, Song et al. 2021 and ADM). x: `[B, in_channels, H, W]`; emb: `[B, emb_channels]`,
    after its SiLU, or None in a block without time (emb_channels 0). Returns `[B, out_channels, H, W]`, with H and W
    changed by resize.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        dropout: float,
        num_groups: int,
        *,
        scale_shift: bool = False,
        norm_eps: float = 1e-6,
        resize: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.norm1 = group_norm(num_groups, in_channels, norm_eps)
        self.resize = nn.Identity() if resize is None else resize
        self.conv1 = conv3x3(in_channels, out_channels)
        self.time = linear_layer(emb_channels, out_channels * (1 + scale_shift)) if emb_channels else None
        self.norm2 = group_norm(num_groups, out_channels, norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero_init(conv3x3(out_channels, out_channels))
        self.shortcut = conv1x1(in_channels, out_channels) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        h = self.conv1(self.resize(F.silu(self.norm1(x))))
        time = None if self.time is None else self.time(emb)[:, :, None, None]
        if time is None:
            h = self.norm2(h)
        elif self.scale_shift:
            scale, shift = time.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + time)
        return self.shortcut(self.resize(x)) + self.conv2(self.dropout(F.silu(h)))


class Downsample(nn.Module):
    """Halve height and width by a convolution of stride 2.

    It pads one row and column at the bottom and right, as TensorFlow's 'SAME' on even sizes, or (pads_both_sides) as
    PyTorch's padding of 1. emb is unused, so that all resampling layers have the same signature.
    """

    def __init__(self, channels: int, *, pads_both_sides: bool = False) -> None:
        super().__init__()
        self.pad = nn.Identity() if pads_both_sides else nn.ZeroPad2d((0, 1, 0, 1))
        conv = nn.Conv2d(channels, channels, kernel_size=3, stride=2, padding=1 if pads_both_sides else 0)
        self.conv = initialise(conv)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        return self.conv(self.pad(x))


class Upsample(nn.Module):
    """Double height and width: nearest-neighbour upsampling, then a 3x3 convolution.

    It is computed as one transposed convolution of stride 2 with a 4x4 kernel, in which the taps on copies of one pixel
    are summed. This is the same linear map with 4/9 of the multiplications.
    """

    taps: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels)
        taps = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]])  # maps 3 taps to 4
        self.register_buffer("taps", torch.kron(taps, taps), persistent=False)  # [9, 16]

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        kernel = self.conv.weight.transpose(0, 1).flatten(2) @ self.taps  # [in, out, 16]
        return F.conv_transpose2d(x, kernel.unflatten(2, (4, 4)), self.conv.bias, stride=2, padding=1)
