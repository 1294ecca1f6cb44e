"""Super-resolution by diffusion: the network is conditioned on a small version of each image.

Saharia et al. 2021 ("SR3"); the upsamplers of Nichol and Dhariwal 2021 and Dhariwal and Nichol 2021.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Cond

LOW_RES = "low_res"
"""The condition that is a small image: `[B, C, H / factor, W / factor]` in [-1, 1]."""


@dataclass(frozen=True)
class LowResolution:
    """The means of the blocks of factor x factor pixels. dropout: share of images whose small version is hidden.

    A small image that is hidden is 0, the middle of black and white everywhere. (The papers shrink by bicubic filters;
    of block means it can be said exactly whether a large image agrees with its small one.)
    """

    factor: int
    dropout: float
    needs_images: ClassVar[bool] = True
    reads_images: ClassVar[bool] = True
    network_settings: ClassVar[Mapping[str, Any]] = {LOW_RES: True}

    def __post_init__(self) -> None:
        check.integer("factor", self.factor, low=2)
        check.number("dropout", self.dropout, low=0, high=1)

    def of(self, batch: Mapping[str, Tensor]) -> Cond:
        if "image" not in batch:
            raise ValueError(
                "cond=low_res makes large images of small ones, and there are none: sample.py task=upsample takes real "
                "images, task=cascade those of another model"
            )
        return {LOW_RES: self.small(batch["image"])}

    def small(self, image: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, C, H / factor, W / factor]`, on the same scale."""
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
        return {**cond, LOW_RES: torch.zeros_like(cond[LOW_RES])}

    def default_conditions(self, ids: Tensor) -> Cond:
        raise NotImplementedError("cond=low_res has no condition without real images (needs_images)")
