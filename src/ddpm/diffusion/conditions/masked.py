"""Inpainting by a trained condition: the network sees the image without the hole, and where the hole is.

Rombach et al. 2022, section 4.5. The authors' masks follow Suvorov et al. 2021 ("LaMa"); ours are those of `holes`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Rng
from ddpm.base.types import Cond
from ddpm.diffusion.conditions.base import CONCAT, ImageCondition
from ddpm.diffusion.conditions.holes import random_holes


@dataclass(frozen=True)
class Masked(check.Checked, ImageCondition):
    """x0 of the image with a black hole (-1), not quantised, and the mask at the size of x0: 1 in the hole, -1 outside.

    channels: those of x0. seed: of the masks in training, which also depend on the image's number and the epoch.
    dropout: share of images whose condition is dropped, which is 0 everywhere then. encode: maps a batch with images
    to x0; the model's codec.
    """

    channels: check.PositiveInt
    seed: check.NonNegativeInt
    dropout: check.Share
    encode: Callable[[Any], Tensor] | None = field(default=None, repr=False, compare=False)
    tasks: ClassVar[str] = "task=inpaint"

    @property
    def network_settings(self) -> Mapping[str, Any]:
        return {"concat_channels": self.channels + 1}

    def of(self, batch: Mapping[str, Tensor]) -> Cond:
        """batch: with the hole, `[B, 1, H, W]` of 0 and 1, or else with the epoch and the images' numbers."""
        if "image" not in batch:
            raise ValueError("cond=masked needs images, and there are none: sample.py task=inpaint takes real images")
        images = batch["image"]
        hole = batch["hole"] if "hole" in batch else self.holes(batch)
        assert self.encode is not None, "the model sets its codec"
        x0 = self.encode({"image": images.masked_fill(hole > 0, -1.0)})
        mask = F.interpolate(hole, x0.shape[2:], mode="nearest")
        return {CONCAT: torch.cat([x0, 2 * mask - 1], dim=1)}

    def holes(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The holes of training images, `[B, 1, H, W]`. In validation, they are those of epoch 0."""
        images = batch["image"]
        numbers = batch["index"] if "index" in batch else torch.zeros(len(images), dtype=torch.int64)
        epoch = int(batch["epoch"]) if "epoch" in batch else 0
        return random_holes(Rng(self.seed, "masks").at(epoch, numbers.to(images.device)), *images.shape[2:])

    def unconditional(self, cond: Cond) -> Cond:
        return {**cond, CONCAT: torch.zeros_like(cond[CONCAT])}
