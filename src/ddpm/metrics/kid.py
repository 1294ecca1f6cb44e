"""Kernel distance between two sets of features: KID, if the features are Inception's. Unbiased for any n.

Binkowski et al. 2018: the squared maximum mean discrepancy under the kernel (x.y / d + 1)^3, averaged over subsets.
torch-fidelity computes it. The subsets depend on the seed and the order of the images, which is that of their numbers.
"""

import math
from dataclasses import dataclass
from typing import Annotated

from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

from ddpm.base import check
from ddpm.metrics.score import Estimate, FeatureSet, Score

SUBSET_SEED = 2020  # torch-fidelity's default


@dataclass(frozen=True)
class KernelDistance(Score):
    """`kid`. Subsets have at most half of the images, so that they differ: 500 of 1,000 images."""

    num_subsets: Annotated[int, check.integers(2)] = 100
    subset_size: Annotated[int, check.integers(2)] = 1000
    values = ("kid",)
    min_images = 4

    def __call__(self, real: FeatureSet, generated: FeatureSet) -> dict[str, Estimate]:
        fewest = min(real.num_images, generated.num_images)
        size = min(self.subset_size, fewest // 2)
        found = kid_features_to_metric(
            generated.rows, real.rows, kid_subsets=self.num_subsets, kid_subset_size=size, rng_seed=SUBSET_SEED,
            verbose=False,
        )  # fmt: skip
        spread = found[KEY_METRIC_KID_STD] * math.sqrt(self.num_subsets / (self.num_subsets - 1))
        return {"kid": Estimate(found[KEY_METRIC_KID_MEAN], error_of_mean(spread, self.num_subsets, size, fewest))}

    def caveat(self, num_real: int, num_generated: int) -> str | None:
        fewest = min(num_real or num_generated, num_generated)
        if fewest // 2 < self.subset_size:
            return f"KID of {fewest} images: its subsets have {fewest // 2} of them instead of {self.subset_size}"
        return None

    def describe(self) -> str:
        return f"KernelDistance(num_subsets={self.num_subsets}, subset_size={self.subset_size} or half)"


def error_of_mean(spread: float, num_subsets: int, size: int, num: int) -> float:
    """Standard error, over draws of the images, of the mean over subsets of `size` among `num` images.

    spread: standard deviation over the subsets. For given images it is sqrt(s^2 (1/size - 1/num)), where s^2 / num is
    the variance for infinitely many subsets; the finite number adds spread^2 / num_subsets. This is exact if the
    distance varies like a mean over images. If both sets have the same distribution, the error is too large.
    """
    by_images = spread**2 / (1 / size - 1 / num) / num
    return math.sqrt(by_images + spread**2 / num_subsets)
