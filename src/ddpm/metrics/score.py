"""The interface of scores: functions from features of real and generated images to values with standard errors."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.base import check

LOWER_IS_BETTER = ("fid", "rfid", "sfid", "kid", "memorized", "nll", "rate", "rmse", "error", "kl", "lpips")
HIGHER_IS_BETTER = (
    *("is", "precision", "recall", "density", "coverage", "gain", "accuracy", "cas", "modes", "within"),
    *("psnr", "ssim", "auroc", "ap", "aupro", "dice", "iou", "sensitivity", "specificity"),
)


def lower_is_better(metric_name: str) -> bool | None:
    """Decided by the first word of names like `fid_inf_mnist_5k`; None for `is_std_...`, `nearest_ratio_...`, ..."""
    word = metric_name.split("_")[0]
    if metric_name.startswith("is_std") or word not in LOWER_IS_BETTER + HIGHER_IS_BETTER:
        return None
    return word in LOWER_IS_BETTER


class Estimate(NamedTuple):
    """A value, and its standard error over draws of the images; None if unknown."""

    value: float
    error: float | None = None

    @classmethod
    def of_mean(cls, values: Tensor) -> "Estimate":
        """The mean of independent values `[N]`, with its standard error."""
        exact = values.double()
        return cls(float(exact.mean()), float(exact.std()) / math.sqrt(len(exact)) if len(exact) > 1 else None)


@dataclass(frozen=True)
class Moments:
    """num: number of vectors. mean: float64 `[d]`. covariance: float64 `[d, d]`, divided by num - 1."""

    num: int
    mean: Tensor
    covariance: Tensor

    @classmethod
    def from_sums(cls, num: int, total: Tensor, outer: Tensor) -> "Moments":
        """total: sum of the vectors, float64 `[d]`. outer: sum of their outer products, float64 `[d, d]`."""
        mean = total / max(num, 1)
        covariance = (outer - num * torch.outer(mean, mean)) / max(num - 1, 1)
        return cls(num, mean, covariance)

    def to(self, device: torch.device) -> "Moments":
        return Moments(self.num, self.mean.to(device), self.covariance.to(device))


@dataclass(frozen=True)
class FeatureSet:
    """Features of all real or all generated images, of one layer and all ranks.

    moments: of the features, None if no score needs them. rows: the features, float32 `[N, d]` in the order of the
    image numbers, None if no score needs them. ids, labels: int64 `[N]` in that order; a label of -1 is none.
    """

    num_images: int
    moments: Moments | None = None
    rows: Tensor | None = None
    ids: Tensor | None = None
    labels: Tensor | None = None

    def to(self, device: torch.device) -> "FeatureSet":
        parts = (part if part is None else part.to(device) for part in (self.moments, self.rows, self.ids, self.labels))
        return FeatureSet(self.num_images, *parts)

    def only(self, chosen: Tensor) -> "FeatureSet":
        """The images with True in `chosen`, bool `[N]`, without moments."""
        rows, ids, labels = (part if part is None else part[chosen] for part in (self.rows, self.ids, self.labels))
        return FeatureSet(int(chosen.sum()), None, rows, ids, labels)

    def with_moments(self) -> "FeatureSet":
        """This set with the moments of its rows."""
        exact = self.rows.double()
        return replace(self, moments=Moments.from_sums(len(exact), exact.sum(0), exact.T @ exact))


class Score(check.Checked, ABC):
    """One or several values of one layer of features. Subclasses are frozen dataclasses of settings.

    moments, rows_of_real, rows_of_generated: what the score needs of the sets. Moments take the same memory for any
    number of images. All ranks get the same sets and compute the same values. needs_labels: whether generated images
    need a requested class. values: short names, with {} for a class. remedy: what to choose if the features lack the
    layer, for the error.
    """

    layer: str = "pooled"
    values: Sequence[str]
    needs_real: bool = True
    moments: bool = False
    rows_of_real: bool = True
    rows_of_generated: bool = True
    needs_labels: bool = False
    min_images: int = 2  # of each kind
    remedy: str = "other features or another metric"

    @abstractmethod
    def __call__(self, real: FeatureSet | None, generated: FeatureSet) -> dict[str, Estimate]:
        """Values by short name, as `{"fid": Estimate(3.17, 0.03)}`; the evaluator appends extractor and number."""

    @abstractmethod
    def describe(self) -> str:
        """The settings of the score, for the protocol, as "KernelDistance(num_subsets=100, subset_size=1000)"."""

    def refuse(self, real: FeatureSet, generated: FeatureSet) -> None:
        """ValueError if the score is undefined for these images. Before generation, rows have length 0."""
        return

    def caveat(self, num_real: int, num_generated: int) -> str | None:
        """A warning about values of these numbers of images, or None."""
        return None
