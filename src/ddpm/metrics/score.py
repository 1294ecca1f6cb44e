"""What a score is: a function from the features of real and generated images to named values with their error bars."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

LOWER_IS_BETTER = ("fid", "rfid", "sfid", "kid", "memorized", "nll", "rate", "rmse", "error", "kl", "lpips")
HIGHER_IS_BETTER = (
    *("is", "precision", "recall", "density", "coverage", "gain", "accuracy", "cas", "modes", "within"),
    *("psnr", "ssim", "auroc", "ap", "aupro", "dice", "iou", "sensitivity", "specificity"),
)


def lower_is_better(metric_name: str) -> bool | None:
    """By the first word of names like `fid_inf_mnist_5k`; None where neither is: `is_std_...`, `nearest_ratio_...`."""
    word = metric_name.split("_")[0]
    if metric_name.startswith("is_std") or word not in LOWER_IS_BETTER + HIGHER_IS_BETTER:
        return None
    return word in LOWER_IS_BETTER


class Estimate(NamedTuple):
    """A value, and its standard error over other draws of the images; None where it is not known."""

    value: float
    error: float | None = None

    @classmethod
    def of_mean(cls, values: Tensor) -> "Estimate":
        """The mean of independent values `[N]`, with its standard error."""
        exact = values.double()
        return cls(float(exact.mean()), float(exact.std()) / math.sqrt(len(exact)) if len(exact) > 1 else None)


@dataclass(frozen=True)
class Moments:
    """num: of the vectors. mean: float64 `[d]`. covariance: float64 `[d, d]`, divided by num - 1."""

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
    """All images of a kind as one layer of the extractor sees them, whichever rank saw which of them.

    moments: of the features, None where no score needs them. rows: the features, float32 `[N, d]` in the order of
    the images' numbers, None where no score needs them. labels: int64 `[N]` in that order, -1 where there is none.
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
        """chosen: bool `[N]`. The rows must be there; moments are left out."""
        rows, ids, labels = (part if part is None else part[chosen] for part in (self.rows, self.ids, self.labels))
        return FeatureSet(int(chosen.sum()), None, rows, ids, labels)

    def with_moments(self) -> "FeatureSet":
        """Those of the rows."""
        exact = self.rows.double()
        return replace(self, moments=Moments.from_sums(len(exact), exact.sum(0), exact.T @ exact))


class Score(ABC):
    """One figure, or several from the same work, of one layer of features. A leaf is a frozen dataclass of settings.

    moments, rows_of_real, rows_of_generated: what it needs of the sets. Moments take the same memory for any number of
    images. Every rank is given the same sets, so every rank computes the same values. needs_labels: it asks which class
    each image is of. values: short names of what it gives, {} for a class in them. remedy: what to choose if the
    features lack its layer.
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
        """Values by short name, as `{"fid": Estimate(3.17, 0.03)}`; the evaluator adds extractor and number."""

    @abstractmethod
    def describe(self) -> str:
        """All that decides its values, for the protocol, as "KernelDistance(num_subsets=100, subset_size=1000)"."""

    def refuse(self, real: FeatureSet, generated: FeatureSet) -> None:
        """ValueError if it cannot be had of these images; asked before any is made: of rows only the width is known."""
        return

    def caveat(self, num_real: int, num_generated: int) -> str | None:
        """What a reader of the value must know about these numbers of images, if anything."""
        return None
