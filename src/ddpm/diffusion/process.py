"""Interfaces of forward processes, which corrupt clean samples. Every kind of diffusion implements one of them."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from ddpm.base.rng import Draws
from ddpm.base.types import Prediction, Time
from ddpm.diffusion.distributions import Distribution
from ddpm.diffusion.schedules.base import NoiseSchedule, Schedule
from ddpm.diffusion.variance import Variance


class ForwardProcess(Protocol):
    """A corruption with times 0..T. z holds all randomness of a trajectory, so `apply` is deterministic.

    z depends on the process: a noise image, the centre of a mask, another image, or an empty tensor.
    """

    @property
    def schedule(self) -> Schedule: ...

    @property
    def T(self) -> int: ...

    @property
    def has_prior(self) -> bool:
        """Whether sampling can start from `prior`. If x_T depends on x0, it starts from a degraded image."""
        ...

    def draw(self, x0: Tensor, draws: Draws) -> Tensor:
        """The randomness z of one trajectory for each sample of x0 `[B, C, H, W]`."""
        ...

    def apply(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        """x_t; x0 itself at t = 0."""
        ...

    def recover_noise(self, x_t: Tensor, x0: Tensor, t: Time, z: Tensor | None = None) -> Tensor:
        """The z with apply(x0, z, t) = x_t for a prediction of x0, or the argument `z` if the process infers none.

        z: the randomness of the trajectory, if it is known; t >= 1.
        """
        ...

    def prior(self, shape: tuple[int, ...], draws: Draws) -> Tensor:
        """A sample x_T `[B, *shape]` of the prior, independent of x0."""
        ...


@runtime_checkable
class MarkovProcess(ForwardProcess, Protocol):
    """A process with closed-form step distributions, as ancestral sampling and the variational bound need."""

    @property
    def schedule(self) -> NoiseSchedule: ...

    def marginal(self, x0: Tensor, t: Time) -> Distribution:
        """q(x_t | x0)."""
        ...

    def posterior(self, x0: Tensor, x_t: Tensor, s: Time, t: Time) -> Distribution:
        """q(x_s | x_t, x0) for any 0 <= s < t."""
        ...

    def reverse(self, prediction: Prediction, x_t: Tensor, s: Time, t: Time, variance: Variance) -> Distribution:
        """The model's p(x_s | x_t); at s = 0, the distribution of the clean sample."""
        ...

    def limit(self, like: Tensor) -> Distribution:
        """The prior p(x_T), in the shape of `like`."""
        ...


def demand_markov(process: ForwardProcess, who: str, instead: str) -> None:
    """ValueError unless `process` is a `MarkovProcess`. who: what needs it, "loss=vlb"; instead: "loss=simple"."""
    if not isinstance(process, MarkovProcess):
        name = type(process).__name__
        raise ValueError(f"{who} needs closed-form step distributions, which {name} does not have; use {instead}")
