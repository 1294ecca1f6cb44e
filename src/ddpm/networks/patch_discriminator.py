"""A discriminator of overlapping patches (Isola et al. 2017, "PatchGAN"), as it trains first stages."""

from collections.abc import Sequence
from typing import ClassVar, final

from torch import Tensor, nn

from ddpm.base import check
from ddpm.networks.layers import group_norm


@final
class PatchDiscriminator(nn.Module):
    """`discriminator(images) -> [B, 1, h, w]`, logits that the patches of the images `[B, in_channels, H, W]` are real.

    num_layers: convolutions of stride 2; with 3 of them a patch has 70 x 70 pixels. norm: "group", or "batch" as
    published, whose statistics are those of the whole step on all processes (GPUs only).
    """

    judges: ClassVar[str] = "images"

    def __init__(self, in_channels: int, base_channels: int, num_layers: int, norm: str, num_groups: int) -> None:
        super().__init__()
        self.in_channels = check.positive_int("in_channels", in_channels)
        self.num_layers = check.positive_int("num_layers", num_layers)
        self.takes_whole_steps = check.one_of("norm", norm, ("group", "batch")) == "batch"
        if check.positive_int("base_channels", base_channels) % check.positive_int("num_groups", num_groups):
            check.fail("base_channels", base_channels, f"a multiple of num_groups = {num_groups}")
        widths = [base_channels * 2 ** min(layer, 3) for layer in range(num_layers + 1)]

        def block(channels: int, width: int, stride: int) -> nn.Sequential:
            normalise = nn.SyncBatchNorm(width) if self.takes_whole_steps else group_norm(num_groups, width)
            convolve = nn.Conv2d(channels, width, kernel_size=4, stride=stride, padding=1, bias=False)
            return nn.Sequential(convolve, normalise, nn.LeakyReLU(0.2))

        self.stem = nn.Sequential(nn.Conv2d(in_channels, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2))
        strides = [2] * (num_layers - 1) + [1]
        self.blocks = nn.Sequential(*map(block, widths, widths[1:], strides))
        self.out = nn.Conv2d(widths[-1], 1, kernel_size=4, padding=1)
        self.smallest_side = 3 * 2**num_layers
        self.apply(initialise)

    def check_images(self, shape: Sequence[int]) -> None:
        """Raise ValueError unless images of the shape `(C, H, W)` have at least one patch."""
        if shape[0] != self.in_channels or min(shape[1:]) < self.smallest_side:
            takes = f"[{self.in_channels}, H, W] with at least {self.smallest_side} pixels a side"
            check.fail("the shape of images", [*shape], f"{takes}, for adversary.num_layers = {self.num_layers}")

    def forward(self, images: Tensor) -> Tensor:
        self.check_images(images.shape[1:])
        return self.out(self.blocks(self.stem(images)))


def initialise(layer: nn.Module) -> None:
    """Weights of convolutions by N(0, 0.02), of norms by N(1, 0.02), as published; biases zero. The published biases of
    the first and the last convolution are those of torch's layers."""
    if isinstance(layer, nn.Conv2d | nn.GroupNorm | nn.SyncBatchNorm):
        nn.init.normal_(layer.weight, 0.0 if isinstance(layer, nn.Conv2d) else 1.0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
