"""Networks: `network(x, time, **cond)` with `in_channels` and `out_channels`. They do not depend on `diffusion`."""

from ddpm.networks.unet import UNet

__all__ = ["UNet"]
