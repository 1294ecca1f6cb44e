"""A score for each class: its real images against the images that were generated for it.

Unlike a score of all images, it detects a model that generates good images of the wrong class.
"""

import itertools
import math
from dataclasses import dataclass

from ddpm.metrics.classes import requested_classes, select_classes
from ddpm.metrics.score import Estimate, FeatureSet, Score, lower_is_better


@dataclass(frozen=True)
class PerClass(Score):
    """For each value of the score `of`, such as `fid`: `fid_per_class`, the mean over classes, `fid_worst` and
    `fid_of_LABEL`.

    Errors are those of the score `of`. The error of the mean assumes independent classes, since they share no image.
    """

    of: Score
    needs_labels = True

    @property
    def layer(self) -> str:
        return self.of.layer

    @property
    def min_images(self) -> int:
        return self.of.min_images

    @property
    def values(self) -> list[str]:
        names = self.of.values
        worst = [f"{name}_worst" for name in names if lower_is_better(name) is not None]
        return [*(f"{name}_per_class" for name in names), *worst, *(f"{name}_of_{{}}" for name in names)]

    def refuse(self, real: FeatureSet, generated: FeatureSet) -> None:
        labels = requested_classes(real, generated, self.describe())
        for label, (kind, images) in itertools.product(labels, (("real", real), ("generated", generated))):
            num = int((images.labels == label).sum())
            if num < self.min_images:
                raise ValueError(
                    f"{self.describe()} needs at least {self.min_images} {kind} images of each class, "
                    f"got {num} of class {label}"
                )

    def __call__(self, real: FeatureSet, generated: FeatureSet) -> dict[str, Estimate]:
        self.refuse(real, generated)
        by_class: dict[str, dict[int, Estimate]] = {}
        for label in requested_classes(real, generated, self.describe()):
            parts = {"real": select_classes(real, [label]), "generated": select_classes(generated, [label])}
            if self.of.moments:
                parts = {kind: part.with_moments() for kind, part in parts.items()}
            for name, estimate in self.of(parts["real"], parts["generated"]).items():
                by_class.setdefault(name, {})[label] = estimate
        values: dict[str, Estimate] = {}
        for name, estimates in by_class.items():
            values[f"{name}_per_class"] = mean_of_estimates(list(estimates.values()))
            lower = lower_is_better(name)
            if lower is not None:
                values[f"{name}_worst"] = (max if lower else min)(estimates.values(), key=lambda each: each.value)
            values |= {f"{name}_of_{label}": estimate for label, estimate in estimates.items()}
        return values

    def caveat(self, num_real: int, num_generated: int) -> str | None:
        return (
            f"{self.of.describe()} by class uses only the images of that class, fewer than {num_generated}: compare it "
            "only with values by class of the same n"
        )

    def describe(self) -> str:
        return f"PerClass({self.of.describe()})"


def mean_of_estimates(estimates: list[Estimate]) -> Estimate:
    """The mean of independent estimates."""
    errors = [each.error for each in estimates]
    num = len(estimates)
    value = math.fsum(each.value for each in estimates) / num
    return Estimate(value, None if None in errors else math.hypot(*errors) / num)
