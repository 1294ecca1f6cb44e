"""Half and twice the resolution through a low-pass filter (Zhang 2019; Karras et al. 2020, StyleGAN2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAPS = (1.0, 3.0, 3.0, 1.0)


class FIR(nn.Module):
    """The filter [1, 3, 3, 1] along rows and columns, of sum 1. x: `[B, C, H, W]`, any number of channels."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor(TAPS) / sum(TAPS)
        self.register_buffer("kernel", torch.outer(taps, taps), persistent=False)

    def filters(self, x: Tensor) -> Tensor:
        """One a channel, `[C, 1, 4, 4]`."""
        return self.kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1)


class FIRDownsample(FIR):
    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, ceil(H / 2), ceil(W / 2)]`: filtered, then every second pixel. An odd side gets a row of zeros."""
        x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        return F.conv2d(x, self.filters(x), stride=2, padding=1, groups=x.shape[1])


class FIRUpsample(FIR):
    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, 2 H, 2 W]`: zeros in between, then filtered, four times as strong."""
        return F.conv_transpose2d(x, 4 * self.filters(x), stride=2, padding=1, groups=x.shape[1])
