"""The one sampling loop, and the interface of the rules that it applies."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws, Rng
from ddpm.base.types import Cond, Prediction
from ddpm.diffusion.denoiser import X0_GUESS, Denoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.process import ForwardProcess, MarkovProcess
from ddpm.diffusion.samplers.timestep_spacing import TimestepSpacing


class State(NamedTuple):
    """A point of a trajectory: the sample x_t at time t, and the prediction of x0 from which it was made.

    At the start there is no prediction yet. memory: what a rule of many steps keeps of the earlier ones.
    """

    t: int
    x_t: Tensor
    prediction: Prediction | None = None
    memory: Any = None


def describe_setting(setting: Any) -> str:
    """A function by its name, with the arguments that a configuration bound to it; anything else by its repr."""
    if isinstance(setting, functools.partial):
        bound = ", ".join(f"{name}={describe_setting(value)}" for name, value in setting.keywords.items())
        return describe_setting(setting.func) + (f"({bound})" if bound else "")
    return getattr(setting, "__name__", repr(setting))


@dataclass(frozen=True)
class Sampler(ABC):
    """steps: how many times the sampler steps, 1..T, or None for all. timestep_spacing: which times it visits."""

    process: ForwardProcess
    timestep_spacing: TimestepSpacing
    steps: int | None

    uses_guidance_gradient: ClassVar[bool] = False
    """Whether its steps are the process's `reverse`, whose mean the guidance gradient moves."""

    def __post_init__(self) -> None:
        if self.steps is not None:
            check.integer("steps", self.steps, low=1, high=self.process.T)

    @abstractmethod
    def step(self, denoiser: Denoiser, state: State, s: int, cond: Cond, draws: Draws) -> State:
        """From state.x_t to x_s, s < state.t. Draws are keyed by s, so no two steps of a run share one."""

    @property
    def order(self) -> int | None:
        """p where the error falls as steps^-p: of the sample where there is no noise, else of its distribution.

        None where nothing is known of it.
        """
        return None

    def evaluations(self, steps: int) -> int:
        """Number of denoiser calls in a run of so many steps."""
        return steps

    def describe(self) -> str:
        """All that changes the samples, except the number of steps: "DDIM(timestep_spacing=uniform, eta=0.0)"."""
        settings = [each.name for each in fields(self) if each.name not in ("process", "steps")]
        described = ", ".join(f"{name}={describe_setting(getattr(self, name))}" for name in settings)
        return f"{type(self).__name__}({described})"

    def times(self, start: int) -> list[int]:
        """From `start` down to 0. A start below T takes its share of the steps, so the pace is the same."""
        if self.steps is None:
            return self.timestep_spacing(start, start, self.process.schedule)
        return self.timestep_spacing(start, max(1, round(self.steps * start / self.process.T)), self.process.schedule)

    @torch.no_grad()
    def trajectory(
        self, denoiser: Denoiser, x: Tensor, rng: Rng, ids: Tensor, cond: Cond | None = None, start: int | None = None
    ) -> Iterator[State]:
        """Every state from `start` (default T) to 0, the last being the sample.

        x: `[B, C, H, W]`, the sample at `start`. ids: int64 `[B]`, the samples' numbers, which key all randomness.
        """
        start = self.process.T if start is None else check.integer("start", start, low=1, high=self.process.T)
        if len(ids) != len(x):
            check.fail("ids", len(ids), f"one for each of the {len(x)} samples")
        state = State(start, x)
        for s in self.times(start)[1:]:
            state = self.step(denoiser, state, s, with_guess(cond or {}, state), rng.at(s, ids))
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
        """Samples `[B, *shape]`, from the prior to time 0. `watch` sees every state on the way."""
        x = self.process.prior(shape, rng.at(self.process.T, ids))
        for state in self.trajectory(denoiser, x, rng, ids, cond):
            x = state.x_t
            watch(state)
        return x


@dataclass(frozen=True)
class GaussianSampler(Sampler):
    """A rule that is made of alpha and sigma, so that it needs the Gaussian process."""

    process: GaussianDiffusion

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.process, GaussianDiffusion):
            name, process = type(self).__name__, type(self.process).__name__
            instead = "ancestral" if isinstance(self.process, MarkovProcess) else "cold"
            raise ValueError(f"the sampler {name} needs process=gaussian, not {process}; use sampler={instead}")


def with_guess(cond: Cond, state: State) -> Cond:
    """The conditions, and the x0 that was predicted last, for a self-conditioned network."""
    return cond if state.prediction is None else {**cond, X0_GUESS: state.prediction.x0}
