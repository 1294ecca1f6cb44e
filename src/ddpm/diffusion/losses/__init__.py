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
    """The input of a turn of training: x0 `[B, C, H, W]` with its conditions and random numbers.

    step: number of optimizer steps done before, for terms that are not computed in every step.
    """

    x0: Tensor
    cond: Cond
    draws: Draws
    step: int


TurnLoss = Callable[[NetworkDenoiser, Example], LossTerms]
"""The loss of a turn. The denoiser is always the model's, whatever network the turn trains."""


class AdversarialLoss(Protocol):
    """A loss that trains several networks, and contains all of them except the model's own."""

    @property
    def time_sampler(self) -> TimeSampler: ...

    @property
    def turns(self) -> Mapping[str, TurnLoss]:
        """The loss of each network by name, in the order of the turns in a step; "network" is the model's own."""
        ...

    @property
    def double_backward(self) -> bool:
        """Whether a network besides the model's is differentiated twice, which compiled code does not support."""
        ...
