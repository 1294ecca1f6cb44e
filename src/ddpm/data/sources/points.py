"""2-D points as grey images of one row and two pixels, x and y.

Coordinates are in [-1, 1]. Points are uint8 like all images, so they lie on a grid of 1 / 127.5; the few outside are
moved to the border. Point i is a function of (seed, i), so a larger set contains the smaller ones.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.memory import require_memory
from ddpm.base.rng import Draws, Rng
from ddpm.data.sources.base import ArrayImages


@dataclass(frozen=True)
class Points(ABC):
    """noise: standard deviation of Gaussian noise in x and y. seed: seed of the points, independent of the run."""

    num_points: check.PositiveInt
    noise: check.Share
    seed: check.NonNegativeInt

    class_names: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check.fields(self)
        require_memory(100 * self.num_points, f"data.source.num_points={self.num_points}")  # the drawn numbers

    @abstractmethod
    def place(self, draws: Draws) -> tuple[Tensor, Tensor | None]:
        """Points without noise, `[N, 2]` as (x, y), and labels, int64 `[N]`, or None."""

    def open(self) -> ArrayImages:
        draws = Rng(self.seed, "points").at(0, torch.arange(self.num_points))
        points, labels = self.place(draws)
        points = points + self.noise * draws.normal("noise", (2,))
        levels = ((points.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        labels = torch.full((self.num_points,), -1) if labels is None else labels
        return ArrayImages(type(self).__name__.lower(), levels.view(-1, 1, 2).numpy(), labels, self.class_names)


@dataclass(frozen=True)
class Gaussian(Points):
    """An isotropic Gaussian, whose score and probability flow have closed forms."""

    def place(self, draws: Draws) -> tuple[Tensor, None]:
        return torch.zeros(self.num_points, 2), None


@dataclass(frozen=True)
class Mixture(Points):
    """Eight Gaussians on a ring of radius 0.7, labelled by component."""

    class_names = ("east", "north-east", "north", "north-west", "west", "south-west", "south", "south-east")

    def place(self, draws: Draws) -> tuple[Tensor, Tensor]:
        labels = draws.integers("label", len(self.class_names))
        return polar(labels * (2 * math.pi / len(self.class_names)), 0.7), labels


@dataclass(frozen=True)
class Grid25(Points):
    """25 Gaussians on a grid of 5 x 5 with 0.4 between neighbours, labelled a1 to e5 as the fields of a chessboard.

    Lin et al. 2018 and Xiao et al. 2022 use such a grid. A noise of 0.02 is 0.05 of the distance between neighbours.
    """

    class_names = tuple(column + row for row in "12345" for column in "abcde")

    def place(self, draws: Draws) -> tuple[Tensor, Tensor]:
        labels = draws.integers("label", len(self.class_names))
        return (torch.stack([labels % 5, labels // 5], dim=1) - 2) * 0.4, labels


@dataclass(frozen=True)
class Swirl(Points):
    """The 2-D swiss roll: the radius grows with the angle (Sohl-Dickstein et al. 2015, figure 1).

    One and a half turns, from the angle 1.5 pi to 4.5 pi, where the radius is 0.9.
    """

    def place(self, draws: Draws) -> tuple[Tensor, None]:
        turn = (1 + 2 * draws.uniform("angle")) / 3
        return polar(4.5 * math.pi * turn, 0.9 * turn), None


@dataclass(frozen=True)
class Checkerboard(Points):
    """Uniform on the eight dark squares of a 4 x 4 checkerboard on [-0.9, 0.9]^2."""

    def place(self, draws: Draws) -> tuple[Tensor, None]:
        square = draws.integers("square", 8)
        row, column = square // 2, square % 2 * 2 + square // 2 % 2  # both even or both odd
        on_board = torch.stack([column, row], dim=1) + draws.uniform("place", (2,))  # in 0..4
        return (on_board / 2 - 1) * 0.9, None


def polar(angle: Tensor, radius: Tensor | float) -> Tensor:
    """Cartesian coordinates `[N, 2]`."""
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
