"""Fading to one colour or to grey: the simplest degradations, linear in time."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Time
from ddpm.diffusion.degradations.base import Degradation, HasFittedPrior, fraction_of_T


@dataclass(frozen=True, kw_only=True, eq=False)
class Fade(HasFittedPrior):
    """x_t = x0 + t / T (colour - x0). Algorithm 2 then ends at x_T - colour + the mean of the predictions of x0.

    colour: in [-1, 1], one number, or one for each channel. x_T is the colour alone.
    """

    colour: float | Sequence[float]

    def __post_init__(self) -> None:
        super().__post_init__()
        for value in self.colours:
            check.number("process.colour", value, low=-1, high=1)

    @property
    def colours(self) -> list[float]:
        return list(self.colour) if isinstance(self.colour, Sequence) else [self.colour]

    def apply(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        return torch.lerp(x0, self._picture(x0).expand_as(x0), fraction_of_T(t, self.T, x0))

    def terminal_statistics(self, x_T: Tensor) -> Tensor:
        """Empty, `[B, 0]`."""
        return x_T.new_zeros(len(x_T), 0)

    def from_statistics(self, statistics: Tensor, shape: tuple[int, ...]) -> Tensor:
        return self._picture(statistics.new_empty(1, *shape)).expand(len(statistics), *shape).clone()

    def _picture(self, like: Tensor) -> Tensor:
        if len(self.colours) not in (1, like.shape[1]):
            check.fail("process.colour", self.colour, f"one number, or one for each of the {like.shape[1]} channels")
        return like.new_tensor(self.colours).view(1, -1, 1, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Decolor(Degradation):
    """Colourisation: x_t = x0 + t / T (mean of the channels - x0), grey at T (Bansal et al. 2022, appendix A.5)."""

    def apply(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        if x0.shape[1] < 2:
            raise ValueError("process=decolor needs colour images, and these have one channel: choose data with 3")
        grey = x0.mean(1, keepdim=True).expand_as(x0)
        return torch.lerp(x0, grey, fraction_of_T(t, self.T, x0))
