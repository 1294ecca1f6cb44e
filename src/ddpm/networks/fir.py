"""Half and twice the resolution behind a low-pass filter, which keeps frequencies from aliasing.

Karras et al. 2020 ("StyleGAN2"), appendix B; in diffusion models since NCSN++ (Song et al. 2021, appendix H).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAPS = (1.0, 3.0, 3.0, 1.0)


class FIR(nn.Module):
    """A filter of four symmetric taps along rows and along columns. gain: the sum of all weights.

    Zeros lie beyond the edges.
    """

    kernel: Tensor

    def __init__(self, taps: Sequence[float] = TAPS, gain: float = 1.0) -> None:
        super().__init__()
        assert len(taps) == 4
        assert list(taps) == list(reversed(taps))  # as convolutions here do not turn them round
        row = torch.tensor(taps, dtype=torch.float64)
        kernel = gain * torch.outer(row, row) / row.sum() ** 2
        self.register_buffer("kernel", kernel.to(torch.get_default_dtype()), persistent=False)

    def per_channel(self, x: Tensor) -> Tensor:
        """The weights of a convolution with as many groups as x has channels, `[C, 1, 4, 4]`."""
        return self.kernel.to(x.dtype).expand(x.shape[1], 1, 4, 4)


class FIRDownsample(FIR):
    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, C, H // 2, W // 2]`."""
        return F.conv2d(x, self.per_channel(x), stride=2, padding=1, groups=x.shape[1])


class FIRUpsample(FIR):
    """Filters an image in which zeros stand between the pixels, hence the gain."""

    def __init__(self, taps: Sequence[float] = TAPS) -> None:
        super().__init__(taps, gain=4.0)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, C, 2 H, 2 W]`."""
        return F.conv_transpose2d(x, self.per_channel(x), stride=2, padding=1, groups=x.shape[1])


class FIRStridedConv(nn.Module):
    """`conv`, a 3x3 convolution of stride 2 without padding, behind the filter. H and W must be even.

    `[B, in_channels, H, W]` to `[B, out_channels, H / 2, W / 2]`.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.fir = FIR()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.conv2d(x, self.fir.per_channel(x), padding=2, groups=x.shape[1]))
