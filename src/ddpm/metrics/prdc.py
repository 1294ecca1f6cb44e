"""Precision and recall, density and coverage: how realistic generated images are, and how much of the data they cover.

Precision and recall use balls to the 3rd nearest neighbour (Kynkaanniemi et al. 2019), density and coverage to the 5th
(Naeem et al. 2020), as in the papers. The tests compare precision and recall with torch-fidelity.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.metrics.classes import refuse_unlabelled_real
from ddpm.metrics.neighbours import k_nearest, squared_distances
from ddpm.metrics.score import Estimate, FeatureSet, Score


@dataclass(frozen=True)
class Membership:
    """Float64 values of each generated or real image, whose means are the scores."""

    precision: Tensor  # [num generated] 0 or 1, whether it is in a ball of a real image
    density: Tensor  # [num generated], number of real balls that contain it, divided by k_coverage
    recall: Tensor  # [num real] 0 or 1, whether it is in a ball of a generated image
    coverage: Tensor  # [num real] 0 or 1, whether its ball contains a generated image


def membership(real: Tensor, generated: Tensor, k: int, k_coverage: int) -> Membership:
    """real, generated: float32 `[N, d]` and `[M, d]`. All four values are computed in one pass."""
    among_real = k_nearest(real, real, max(k, k_coverage), leave_out_self=True)[0].square()
    real_squares, cover_squares = among_real[:, k - 1], among_real[:, k_coverage - 1]
    generated_squares = k_nearest(generated, generated, k, leave_out_self=True)[0][:, -1].square()
    precision = torch.zeros(len(generated), dtype=torch.float64, device=generated.device)
    density = torch.zeros_like(precision)
    recall = torch.zeros(len(real), dtype=torch.float64, device=real.device)
    coverage = torch.zeros_like(recall)
    for rows_slice, others_slice, squares in squared_distances(generated, real):
        precision[rows_slice] = torch.maximum(
            precision[rows_slice], (squares <= real_squares[others_slice]).any(1).double()
        )
        recall[others_slice] = torch.maximum(
            recall[others_slice], (squares <= generated_squares[rows_slice, None]).any(0).double()
        )
        covers = squares < cover_squares[others_slice]
        density[rows_slice] += covers.sum(1).double() / k_coverage
        coverage[others_slice] = torch.maximum(coverage[others_slice], covers.any(0).double())
    return Membership(precision, density, recall, coverage)


@dataclass(frozen=True)
class PrecisionRecall(Score):
    """`precision`, `recall`, `density`, `coverage`, from the layer "pooled".

    Each is a mean over images for fixed balls, with the standard error of that mean, the limit of a bootstrap: over
    generated images for precision and density, over real ones for recall and coverage.
    """

    k: int = 3
    k_coverage: int = 5
    layer: str = "pooled"
    values = ("precision", "recall", "density", "coverage")

    def __post_init__(self) -> None:
        check.positive_int("k", self.k)
        check.positive_int("k_coverage", self.k_coverage)

    @property
    def min_images(self) -> int:
        return max(self.k, self.k_coverage) + 1

    def __call__(self, real: FeatureSet, generated: FeatureSet) -> dict[str, Estimate]:
        found = vars(membership(real.rows, generated.rows, self.k, self.k_coverage))
        return {name: Estimate.of_mean(each) for name, each in found.items()}

    def caveat(self, num_real: int, num_generated: int) -> str | None:
        if num_real and not 0.5 <= num_real / num_generated <= 2:
            return (
                f"precision, recall, density and coverage of {num_generated} generated against {num_real} real images: "
                "balls shrink with the number of images. Compare only values of equal numbers"
            )
        return None

    def describe(self) -> str:
        return f"PrecisionRecall(k={self.k}, k_coverage={self.k_coverage}, layer={self.layer})"


@dataclass(frozen=True)
class ClassCoverage(Score):
    """`coverage_of_LABEL`: the coverage of the real images of each class, and `coverage_worst` of them.

    It needs labels. Unlike the coverage of all images, it shows which class a model leaves out.
    """

    k: int = 5
    layer: str = "pooled"
    values = ("coverage_of_{}", "coverage_worst")

    def __post_init__(self) -> None:
        check.positive_int("k", self.k)

    @property
    def min_images(self) -> int:
        return self.k + 1

    def __call__(self, real: FeatureSet, generated: FeatureSet) -> dict[str, Estimate]:
        self.refuse(real, generated)
        covered = membership(real.rows, generated.rows, self.k, self.k).coverage
        values = {}
        for label in real.labels[real.labels >= 0].unique().tolist():
            values[f"coverage_of_{label}"] = Estimate.of_mean(covered[real.labels == label])
        return {**values, "coverage_worst": min(values.values())}

    def refuse(self, real: FeatureSet, generated: FeatureSet) -> None:
        refuse_unlabelled_real(real, self.describe())

    def describe(self) -> str:
        return f"ClassCoverage(k={self.k}, layer={self.layer})"
