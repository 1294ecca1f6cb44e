"""What turns a clean sample into a corrupted one: the seam through which every kind of diffusion enters."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from ddpm.base.rng import Draws
from ddpm.base.types import Prediction, Time
from ddpm.diffusion.distributions import Distribution
from ddpm.diffusion.schedules.base import NoiseSchedule, Schedule
from ddpm.diffusion.variance import Variance


class ForwardProcess(Protocol):
    """A corruption with times 0..T. All randomness of a trajectory lies in z, so `apply` is a function.

    z is whatever the process draws: a noise image, a mask's centre, another picture, nothing.
    """

    @property
    def schedule(self) -> Schedule: ...

    @property
    def T(self) -> int: ...

    @property
    def has_prior(self) -> bool:
        """Whether samples can begin at `prior`. Where x_T still depends on x0, at a degraded image."""
        ...

    def draw(self, x0: Tensor, draws: Draws) -> Tensor:
        """The randomness z of one trajectory for each sample of x0 `[B, C, H, W]`."""
        ...

    def apply(self, x0: Tensor, z: Tensor, t: Time) -> Tensor:
        """x_t; x0 itself at t = 0."""
        ...

    def recover_noise(self, x_t: Tensor, x0: Tensor, t: Time, z: Tensor | None = None) -> Tensor:
        """The z for which apply(x0, z, t) is x_t, given a guess of x0; or `z`, where a process knows it all along.

        z: that with which the trajectory began, if anybody knows; t >= 1.
        """
        ...

    def prior(self, shape: tuple[int, ...], draws: Draws) -> Tensor:
        """x_T `[B, *shape]` where nothing is known of x0."""
        ...


@runtime_checkable
class MarkovProcess(ForwardProcess, Protocol):
    """A process whose steps are distributions in closed form: what ancestral sampling and the bound are made of."""

    @property
    def schedule(self) -> NoiseSchedule: ...

    def marginal(self, x0: Tensor, t: Time) -> Distribution:
        """q(x_t | x0)."""
        ...

    def posterior(self, x0: Tensor, x_t: Tensor, s: Time, t: Time) -> Distribution:
        """q(x_s | x_t, x0) for any 0 <= s < t."""
        ...

    def reverse(self, prediction: Prediction, x_t: Tensor, s: Time, t: Time, variance: Variance) -> Distribution:
        """p(x_s | x_t) of the model, at s = 0 the distribution of the clean sample."""
        ...

    def limit(self, like: Tensor) -> Distribution:
        """What x_T is taken for where nothing is known of x0, of the shape of `like`."""
        ...


def demand_markov(process: ForwardProcess, who: str, instead: str) -> None:
    """ValueError unless the steps of `process` are distributions. who, instead: "loss=vlb", "loss=simple"."""
    if not isinstance(process, MarkovProcess):
        name = type(process).__name__
        raise ValueError(f"{who} needs steps that are distributions, and those of {name} are none; use {instead}")
