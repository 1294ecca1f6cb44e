"""A small variational autoencoder (Kingma and Welling 2014), to be compared with diffusion models."""

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.base import check
from ddpm.networks.layers import conv3x3, group_norm, initialise, linear_layer
from ddpm.networks.settings import check_latent, check_size


class ConvBlock(nn.Module):
    """h + two times (norm, SiLU, convolution), all of one width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(group_norm(8, channels) for _ in range(2))
        self.convs = nn.ModuleList(conv3x3(channels, channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = conv(F.silu(norm(h)))
        return x + h


@final
class VAE(nn.Module):
    """`network(x, time, latent=z) -> [B, in_channels, H, W]`: the mean of an image, drawn by z; x and time say nothing.

    So it samples as a generator of one step, with schedule.num_timesteps=1. z: standard normal `[B, latent_channels]`.
    encode(x0) is mean and log variance of z, `[B, latent_channels]` each. size: of the images, divisible by 4.
    base_channels: width at half the resolution, and half that at a quarter; a multiple of 8.
    """

    def __init__(self, in_channels: int, size: int | list[int], base_channels: int, latent_channels: int) -> None:
        super().__init__()
        self.in_channels = self.out_channels = check.positive_int("in_channels", in_channels)
        self.latent_channels = check.positive_int("latent_channels", latent_channels)
        if check.positive_int("base_channels", base_channels) % 8:
            check.fail("base_channels", base_channels, "a multiple of 8")
        check_size(check.height_width("size", size), num_levels=3, patch_size=1)
        height, width = (side // 4 for side in check.height_width("size", size))
        narrow, wide = base_channels, 2 * base_channels

        def halve(channels: int, outputs: int) -> nn.Conv2d:
            return initialise(nn.Conv2d(channels, outputs, kernel_size=4, stride=2, padding=1))

        def double(channels: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Upsample(scale_factor=2), conv3x3(channels, outputs))

        self.encoder = nn.Sequential(
            *(halve(in_channels, narrow), ConvBlock(narrow), halve(narrow, wide), ConvBlock(wide), nn.Flatten()),
            linear_layer(wide * height * width, 2 * latent_channels),
        )
        self.decoder = nn.Sequential(
            *(linear_layer(latent_channels, wide * height * width), nn.Unflatten(1, (wide, height, width))),
            *(ConvBlock(wide), double(wide, narrow), ConvBlock(narrow), double(narrow, narrow), nn.SiLU()),
            conv3x3(narrow, in_channels),
        )

    def encode(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(x0).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, latent: Tensor) -> Tensor:
        return self.decoder(latent.to(self.decoder[0].weight.dtype)).tanh()

    def forward(self, x: Tensor, time: Tensor, latent: Tensor | None = None, **others: Tensor) -> Tensor:
        if others:
            raise ValueError(f"this VAE takes no conditions but latent, got {', '.join(sorted(others))}")
        check_latent(latent, len(x), self.latent_channels)
        return self.decode(latent)
