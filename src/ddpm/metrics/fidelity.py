"""Fidelity of images to their own originals: PSNR, SSIM and root mean squared error."""

from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from ddpm.base import check

SSIM_BORDER = 5
"""Pixels of SSIM's window on each side of its centre (Wang et al. 2004, section III C)."""


def squared_error(x: Tensor, y: Tensor) -> Tensor:
    """Mean over the pixels of each image `[..., C, H, W]`, with pixels in [0, 1] as in Song et al. 2021, table 2."""
    return ((x - y) / 2).square().flatten(-3).mean(-1)


def rmse(x: Tensor, y: Tensor) -> Tensor:
    """Root of the mean squared error of each image `[..., C, H, W]` in [-1, 1], with pixels in [0, 1]."""
    return squared_error(x, y).sqrt()


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image `[..., C, H, W]`; the peak is 2, from -1 to 1."""
    return -10 * squared_error(x, y).log10()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of each image `[N, C, H, W]` in [-1, 1]; 1 for equal images (Wang et al. 2004).

    We use a Gaussian window of 11 x 11 pixels with standard deviation 1.5, reflection at the borders, K1 = 0.01,
    K2 = 0.03, and the mean over channels.
    """
    if min(x.shape[-2:]) <= SSIM_BORDER:
        size = " x ".join(map(str, x.shape[-2:]))
        check.fail("data.size", size, f"at least {SSIM_BORDER + 1} for SSIM, whose window is reflected at the border")
    return structural_similarity_index_measure(x, y, sigma=1.5, data_range=2.0, reduction="none")
