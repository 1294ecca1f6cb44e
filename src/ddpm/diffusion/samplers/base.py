"""The sampling loop, and the interface of samplers."""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws, Rng
from ddpm.base.types import Cond, Prediction
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.process import ForwardProcess, MarkovProcess
from ddpm.diffusion.samplers.step_inputs import Latents, StepInputs, last_prediction
from ddpm.diffusion.samplers.timestep_spacing import TimestepSpacing


class State(NamedTuple):
    """A point of a trajectory: the sample x_t at time t, and the prediction from which it was computed.

    prediction: None at the start. memory: what a multistep sampler stores of earlier steps. left: number of steps to 0,
    which the loop sets before each step; infinite if unknown.
    """

    t: int
    x_t: Tensor
    prediction: Prediction | None = None
    memory: Any = None
    left: float = math.inf


def describe_setting(setting: Any) -> str:
    """A function by its name, with the arguments that a configuration bound to it; anything else by its repr."""
    if isinstance(setting, functools.partial):
        bound = ", ".join(f"{name}={describe_setting(value)}" for name, value in setting.keywords.items())
        return describe_setting(setting.func) + (f"({bound})" if bound else "")
    return getattr(setting, "__name__", repr(setting))


@dataclass(frozen=True)
class Sampler(ABC):
    """steps: number of steps, 1..T; None: T. timestep_spacing: which times the sampler visits.

    step_inputs: inputs of the network that change at each step.
    """

    process: ForwardProcess
    timestep_spacing: TimestepSpacing
    steps: int | None
    step_inputs: StepInputs = field(default=last_prediction, kw_only=True)

    uses_guidance_gradient: ClassVar[bool] = False
    """Whether steps use the process's `reverse`, which adds the guidance gradient to the mean."""

    def __post_init__(self) -> None:
        check.fields(self)
        if self.steps is not None:
            check.integer("steps", self.steps, low=1, high=self.process.T)

    @abstractmethod
    def step(self, denoiser: Denoiser, state: State, s: int, cond: Cond, draws: Draws) -> State:
        """One step from state.x_t to x_s, s < state.t. Draws are keyed by s, so each step has its own."""

    @classmethod
    def refuse_latents(cls) -> None:
        """ValueError unless the sampler is valid for an x0 that is drawn from a distribution, instead of its mean."""
        raise ValueError(
            f"this network models a distribution of x0, and the sampler {cls.__name__} needs its mean: "
            "choose sampler=ancestral"
        )

    def with_latents(self, channels: int) -> Self:
        """This sampler for a network with a latent of `channels` channels."""
        self.refuse_latents()
        return replace(self, step_inputs=Latents(channels, fixed=False))

    def conditions(self, cond: Cond | None, state: State, draws: Draws) -> Cond:
        """The conditions of a step: `cond`, which is constant, and the step inputs."""
        return {**(cond or {}), **self.step_inputs(state.prediction, draws)}

    @property
    def order(self) -> int | None:
        """The order of convergence p: the error falls as steps^-p; None: unknown.

        The error is that of the sample for a deterministic sampler, else that of its distribution.
        """
        return None

    def evaluations(self) -> int:
        """Number of denoiser calls from T to 0."""
        return len(self.times(self.process.T)) - 1

    def describe(self) -> str:
        """All settings that change the samples, except the steps: "DDIM(timestep_spacing=uniform, eta=0.0)".

        Fields with a default were added later. They are left out if they have the default, so that the description of
        earlier images is unchanged.
        """
        apart = ("process", "steps", "step_inputs")
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in apart}
        later = {each.name for each in fields(self) if getattr(self, each.name) == each.default}
        described = ", ".join(f"{name}={describe_setting(each)}" for name, each in values.items() if name not in later)
        return f"{type(self).__name__}({described})"

    def times(self, start: int) -> list[int]:
        """The times from `start` down to 0. For a start below T, the number of steps is reduced in proportion.

        The times of other programs may begin below T, with x_T as x at the first time.
        """
        if self.steps is None:
            return self.timestep_spacing(start, start, self.process.schedule)
        return self.timestep_spacing(start, max(1, round(self.steps * start / self.process.T)), self.process.schedule)

    @torch.no_grad()
    def trajectory(
        self, denoiser: Denoiser, x: Tensor, rng: Rng, ids: Tensor, cond: Cond | None = None, start: int | None = None
    ) -> Iterator[State]:
        """Yields the state after each step from `start` (default T) to 0; the last one holds the sample.

        x: `[B, C, H, W]`, x_t at `start`. ids: int64 `[B]`, the numbers of the samples, which key all randomness.
        """
        start = self.process.T if start is None else check.integer("start", start, low=1, high=self.process.T)
        if len(ids) != len(x):
            check.fail("ids", len(ids), f"one for each of the {len(x)} samples")
        first, *following = self.times(start)
        state = State(first, x)
        for number, s in enumerate(following):
            draws = rng.at(s, ids)
            state = state._replace(left=len(following) - number)
            state = self.step(denoiser, state, s, self.conditions(cond, state, draws), draws)
            yield state

    def sample(
        self,
        denoiser: Denoiser,
        shape: tuple[int, ...],
        rng: Rng,
        ids: Tensor,
        cond: Cond | None = None,
        watch: Callable[[State], None] = lambda state: None,
    ) -> Tensor:
        """Samples `[B, *shape]` from the prior to time 0. watch: called with the state after each step."""
        x = self.process.prior(shape, rng.at(self.process.T, ids))
        for state in self.trajectory(denoiser, x, rng, ids, cond):
            x = state.x_t
            watch(state)
        return x


@dataclass(frozen=True)
class GaussianSampler(Sampler):
    """A sampler whose steps need alpha and sigma, and so the Gaussian process."""

    process: GaussianDiffusion

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.process, GaussianDiffusion):
            name, process = type(self).__name__, type(self.process).__name__
            instead = "ancestral" if isinstance(self.process, MarkovProcess) else "cold"
            raise ValueError(f"the sampler {name} needs process=gaussian, not {process}; use sampler={instead}")
