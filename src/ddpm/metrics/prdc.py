"""Precision and recall, density and coverage: how realistic generated images are, and how much of the data they cover.

Precision and recall use balls to the 3rd nearest neighbour (Kynkaanniemi et al. 2019), density and coverage to the 5th
(Naeem et al. 2020), as in the papers. The tests compare precision and recall with torch-fidelity.

A ball is `closed` if it includes its border, as in the code of Kynkaanniemi et al., or `open`, as in the code of Naeem
et al. (prdc). Copies of real images lie on borders. Distances near a border are computed exactly.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.metrics.classes import refuse_unlabelled_real
from ddpm.metrics.neighbours import CHUNK, exact_squares, k_nearest_squares, squared_distances
from ddpm.metrics.score import Estimate, FeatureSet, Score


@dataclass(frozen=True)
class Membership:
    """Float64 values of each generated or real image, whose means are the scores."""

    precision: Tensor  # [num generated] 0 or 1, whether it is in a ball of a real image
    density: Tensor  # [num generated], number of real balls that contain it, divided by k_coverage
    recall: Tensor  # [num real] 0 or 1, whether it is in a ball of a generated image
    coverage: Tensor  # [num real] 0 or 1, whether its ball contains a generated image


BALLS = {"closed": torch.le, "open": torch.lt}
Ball = Annotated[str, check.words(*BALLS)]
SPARE = 8
"""Neighbours beyond the k-th, among which rounding of the distances may have hidden it."""
ROUNDING = 1e-5
"""Bound on the error of `squared_distances`, relative to the largest squared distance from the centre."""


def squared_radii(rows: Tensor, ks: Sequence[int]) -> list[Tensor]:
    """Squared distances `[N]` of each row to its k-th nearest other row, for each of `ks`."""
    squares, nearest = k_nearest_squares(rows, rows, min(max(ks) + SPARE, len(rows) - 1), leave_out_self=True)
    radii, slack = [], 2 * rounding_error(rows, rows.mean(0))
    for k in ks:
        radius = exact_squares(rows, rows[nearest[:, k - 1]])
        near_ties = ((squares - squares[:, [k - 1]]).abs() <= slack).sum(1) > 1
        some, others = rows[near_ties], nearest[near_ties].T  # only there the order of the neighbours is uncertain
        if len(some):
            exact = torch.stack([exact_squares(some, rows[column]) for column in others])
            radius[near_ties] = exact.sort(dim=0).values[k - 1]
        radii.append(radius)
    return radii


def rounding_error(rows: Tensor, center: Tensor) -> float:
    """Bound on the error of `squared_distances` to or from `rows`."""
    return ROUNDING * float((rows - center).square().sum(1).max())


def membership(
    real: Tensor, generated: Tensor, k: int, k_coverage: int, ball: str = "closed", ball_coverage: str = "open"
) -> Membership:
    """real, generated: float32 `[N, d]` and `[M, d]`. All four values are computed in one pass."""
    inside, covered = BALLS[ball], BALLS[ball_coverage]
    real_squares, cover_squares = squared_radii(real, [k, k_coverage])
    (generated_squares,) = squared_radii(generated, [k])
    center = real.mean(0)
    slack = sum(rounding_error(rows, center) for rows in (real, generated))
    precision = torch.zeros(len(generated), dtype=torch.float64, device=generated.device)
    density = torch.zeros_like(precision)
    recall = torch.zeros(len(real), dtype=torch.float64, device=real.device)
    coverage = torch.zeros_like(recall)
    for rows_slice, others_slice, squares in squared_distances(generated, real):
        radii = real_squares[others_slice], cover_squares[others_slice], generated_squares[rows_slice, None]
        at_border = functools.reduce(torch.logical_or, ((squares - radius).abs() <= slack for radius in radii))
        i, j = at_border.nonzero().unbind(1)
        for some in torch.arange(len(i), device=i.device).split(CHUNK):
            of, among = i[some], j[some]
            squares[of, among] = exact_squares(generated[rows_slice][of], real[others_slice][among])
        precision[rows_slice] = torch.maximum(precision[rows_slice], inside(squares, radii[0]).any(1).double())
        recall[others_slice] = torch.maximum(recall[others_slice], inside(squares, radii[2]).any(0).double())
        covers = covered(squares, radii[1])
        density[rows_slice] += covers.sum(1).double() / k_coverage
        coverage[others_slice] = torch.maximum(coverage[others_slice], covers.any(0).double())
    return Membership(precision, density, recall, coverage)


@dataclass(frozen=True)
class PrecisionRecall(Score):
    """`precision`, `recall`, `density`, `coverage`, from the layer "pooled".

    Each is a mean over images for fixed balls, with the standard error of that mean, the limit of a bootstrap: over
    generated images for precision and density, over real ones for recall and coverage. ball: of precision and recall;
    ball_coverage: of density and coverage.
    """

    k: check.PositiveInt = 3
    k_coverage: check.PositiveInt = 5
    ball: Ball = "closed"
    ball_coverage: Ball = "open"
    layer: str = "pooled"
    values = ("precision", "recall", "density", "coverage")

    @property
    def min_images(self) -> int:
        return max(self.k, self.k_coverage) + 1

    def __call__(self, real: FeatureSet, generated: FeatureSet) -> dict[str, Estimate]:
        balls = self.ball, self.ball_coverage
        found = vars(membership(real.rows, generated.rows, self.k, self.k_coverage, *balls))
        return {name: Estimate.of_mean(each) for name, each in found.items()}

    def caveat(self, num_real: int, num_generated: int) -> str | None:
        if num_real and not 0.5 <= num_real / num_generated <= 2:
            return (
                f"precision, recall, density and coverage of {num_generated} generated against {num_real} real images: "
                "balls shrink with the number of images. Compare only values of equal numbers"
            )
        return None

    def describe(self) -> str:
        balls = f"ball={self.ball}, ball_coverage={self.ball_coverage}"
        return f"PrecisionRecall(k={self.k}, k_coverage={self.k_coverage}, {balls}, layer={self.layer})"


@dataclass(frozen=True)
class ClassCoverage(Score):
    """`coverage_of_LABEL`: the coverage of the real images of each class, and `coverage_worst` of them.

    It needs labels. Unlike the coverage of all images, it shows which class a model leaves out.
    """

    k: check.PositiveInt = 5
    ball: Ball = "open"
    layer: str = "pooled"
    values = ("coverage_of_{}", "coverage_worst")

    @property
    def min_images(self) -> int:
        return self.k + 1

    def __call__(self, real: FeatureSet, generated: FeatureSet) -> dict[str, Estimate]:
        self.refuse(real, generated)
        covered = membership(real.rows, generated.rows, self.k, self.k, self.ball, self.ball).coverage
        values = {}
        for label in real.labels[real.labels >= 0].unique().tolist():
            values[f"coverage_of_{label}"] = Estimate.of_mean(covered[real.labels == label])
        return {**values, "coverage_worst": min(values.values())}

    def refuse(self, real: FeatureSet, generated: FeatureSet) -> None:
        refuse_unlabelled_real(real, self.describe())

    def describe(self) -> str:
        return f"ClassCoverage(k={self.k}, ball={self.ball}, layer={self.layer})"
