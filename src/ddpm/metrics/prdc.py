"""Precision and recall, density and coverage: how many generated images look real, how many real ones are generated.

Precision and recall with balls of the 3rd nearest neighbour (Kynkaanniemi et al. 2019), density and coverage with the
5th (Naeem et al. 2020), as their authors have them. torch-fidelity has the first two, the tests hold ours to them.
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
    """Float64, for each image: whether a generated one is in a real ball, or how many hold it; for real ones alike."""

    precision: Tensor  # [num generated] 0 or 1
    density: Tensor  # [num generated]
    recall: Tensor  # [num real] 0 or 1
    coverage: Tensor  # [num real] 0 or 1


def membership(real: Tensor, generated: Tensor, k: int, k_coverage: int) -> Membership:
    """real, generated: float32 `[N, d]` and `[M, d]`. Real balls of both kinds and generated ones in one pass."""
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

    Each is a mean over images, given all balls; so is its error bar, to which a bootstrap of ever more resamples tends:
    over generated images for precision and density, over real ones for recall and coverage.
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
                "balls are the smaller, the more images there are. Compare like numbers only"
            )
        return None

    def describe(self) -> str:
        return f"PrecisionRecall(k={self.k}, k_coverage={self.k_coverage}, layer={self.layer})"


@dataclass(frozen=True)
class ClassCoverage(Score):
    """`coverage_of_LABEL`: the coverage of the real images of each class, and `coverage_worst` of them.

    Needs labels. It tells which class a model forgets, where one coverage for all does not.
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
