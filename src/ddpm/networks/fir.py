"""Half and twice the resolution through a low-pass filter, which keeps frequencies from aliasing.

Karras et al. 2020 ("StyleGAN2"), appendix B; in diffusion models since NCSN++ (Song et al. 2021, appendix H).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FIR(nn.Module):
    """`[B, C, H, W]`, each channel filtered by symmetric taps along rows and along columns, whose sum is made 1.

    Zeros lie beyond the edges. stride 2 and padding 1 give `[B, C, H // 2, W // 2]`.
    """

    kernel: Tensor

    def __init__(self, stride: int = 2, padding: int = 1, taps: Sequence[float] = (1, 3, 3, 1)) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        row = torch.tensor(taps, dtype=torch.float64) / sum(taps)
        self.register_buffer("kernel", torch.outer(row, row).to(torch.get_default_dtype()), persistent=False)

    def weights(self, x: Tensor) -> Tensor:
        """The same for each channel, `[C, 1, 4, 4]`."""
        return self.kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weights(x), stride=self.stride, padding=self.padding, groups=x.shape[1])


class FIRUpsample(FIR):
    """`[B, C, 2 H, 2 W]`: an image with zeros between its pixels, filtered and four times as strong."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, 4 * self.weights(x), stride=2, padding=1, groups=x.shape[1])
