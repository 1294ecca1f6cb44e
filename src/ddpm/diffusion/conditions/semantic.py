"""Semantic synthesis: the network is conditioned on a label for each pixel (Rombach et al. 2022, section 4.3.2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Cond
from ddpm.diffusion.conditions.base import ImageCondition

LABEL_MAP = "label_map"
"""Name of the condition that holds the label of each pixel: int64 `[B, H, W]`, -1 for none."""


@dataclass(frozen=True)
class Semantic(ImageCondition):
    """num_labels: labels are in 0..num_labels-1. dropout: share of images whose labels are all dropped."""

    num_labels: check.PositiveInt
    dropout: check.Share
    tasks: ClassVar[str] = "task=label_maps"

    def __post_init__(self) -> None:
        if self.num_labels is None:
            raise ValueError("cond=semantic needs label images: data.label_images=FOLDER data.num_labels=182")
        check.fields(self)

    @property
    def network_settings(self) -> Mapping[str, Any]:
        return {"num_labels": self.num_labels}

    def of(self, batch: Mapping[str, Tensor]) -> Cond:
        if LABEL_MAP not in batch:
            raise ValueError("cond=semantic needs label images, and these data have none: data.label_images=FOLDER")
        return {LABEL_MAP: batch[LABEL_MAP].long()}

    def unconditional(self, cond: Cond) -> Cond:
        return {**cond, LABEL_MAP: torch.full_like(cond[LABEL_MAP], -1)}
