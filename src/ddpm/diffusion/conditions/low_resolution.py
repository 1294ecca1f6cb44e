"""Super-resolution by diffusion: the network is conditioned on a small version of each image.

Saharia et al. 2021 ("SR3"); the upsamplers of Nichol and Dhariwal 2021 and Dhariwal and Nichol 2021.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Cond
from ddpm.diffusion.conditions.base import CONCAT, ImageCondition


@dataclass(frozen=True)
class LowResolution(check.Checked, ImageCondition):
    """Small images `[B, C, H / factor, W / factor]` in [-1, 1], the mean of each block of factor x factor pixels.

    dropout: share of images whose small image is dropped.

    A dropped small image is 0 everywhere, the middle of black and white. The papers downsample by bicubic filters; with
    block means, it can be checked exactly whether a large image agrees with its small one.
    """

    factor: Annotated[int, check.integers(2)]
    dropout: check.Share
    tasks: ClassVar[str] = "task=upsample, task=upsample_files or task=cascade"
    network_settings: ClassVar[Mapping[str, Any]] = {"concat_channels": True}

    def of(self, batch: Mapping[str, Tensor]) -> Cond:
        if "image" not in batch:
            raise ValueError(
                "cond=low_res needs small images, and there are none: sample.py task=upsample takes real images, "
                "task=cascade those of another model, task=upsample_files small images of your own"
            )
        return {CONCAT: self.small(batch["image"])}

    def small(self, image: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, C, H / factor, W / factor]`, in the same range."""
        self.small_shape(tuple(image.shape[1:]))
        return F.avg_pool2d(image, self.factor)

    def small_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(C, H, W) of the small version of an image `shape`."""
        channels, height, width = shape
        if height % self.factor or width % self.factor:
            divisor = f"a divisor of the images' height and width, {height} x {width}"
            check.fail("cond.factor", self.factor, divisor)
        return channels, height // self.factor, width // self.factor

    def unconditional(self, cond: Cond) -> Cond:
        return {**cond, CONCAT: torch.zeros_like(cond[CONCAT])}
