"""Networks: `network(x, time, **cond)` with `in_channels` and `out_channels`, and nothing known of diffusion."""

from ddpm.networks.unet import UNet

__all__ = ["UNet"]
