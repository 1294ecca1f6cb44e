"""Training losses: each a callable from a denoiser and clean samples to LossTerms."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from torch import Tensor

from ddpm.base.rng import Draws
from ddpm.base.types import Cond, LossTerms
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.time_sampler import TimeSampler


class Loss(Protocol):
    @property
    def time_sampler(self) -> TimeSampler: ...

    def __call__(self, denoiser: NetworkDenoiser, x0: Tensor, cond: Cond, draws: Draws) -> LossTerms:
        """x0: `[B, C, H, W]`. Nothing is averaged over the batch."""
        ...


class Example(NamedTuple):
    """What a turn of a training learns from: x0 `[B, C, H, W]` with its conditions and random numbers.

    step: optimizer steps done before, for a term that is not due at each.
    """

    x0: Tensor
    cond: Cond
    draws: Draws
    step: int


TurnLoss = Callable[[NetworkDenoiser, Example], LossTerms]
"""The loss of a turn. The denoiser is always the model's, whatever network the turn trains."""


class AdversarialLoss(Protocol):
    """A loss that trains several networks, and holds those beside the model's own."""

    @property
    def time_sampler(self) -> TimeSampler: ...

    @property
    def turns(self) -> Mapping[str, TurnLoss]:
        """By the names of the networks, in the order in which a step takes them; "network" is the model's own."""
        ...

    @property
    def double_backward(self) -> bool:
        """Whether another network than the model's is differentiated twice, which compiled code cannot be."""
        ...
