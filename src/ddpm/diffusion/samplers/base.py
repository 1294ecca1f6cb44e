"""The one sampling loop, and the interface of the rules that it applies."""

import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm import check
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.grid import Grid
from ddpm.rng import Draws, Rng
from ddpm.types import Cond, Prediction


class State(NamedTuple):
    """A point of a trajectory: the sample x_t at time t, and the prediction of x0 from which it was made."""

    t: int
    x_t: Tensor
    prediction: Prediction


def described(setting: Any) -> str:
    """A function by its name, with the arguments that a configuration bound to it; anything else by its repr."""
    if isinstance(setting, functools.partial):
        bound = ", ".join(f"{name}={value!r}" for name, value in setting.keywords.items())
        return described(setting.func) + (f"({bound})" if bound else "")
    return getattr(setting, "__name__", repr(setting))


@dataclass(frozen=True)
class Sampler(ABC):
    """steps: how many times the sampler steps, 1..T, or None for all. grid: which times it visits."""

    process: GaussianDiffusion
    grid: Grid
    steps: int | None

    def __post_init__(self) -> None:
        if self.steps is not None:
            check.integer("steps", self.steps, low=1, high=self.process.T)

    @abstractmethod
    def step(self, denoiser: Denoiser, x_t: Tensor, t: int, s: int, cond: Cond, draws: Draws) -> State:
        """From x_t to x_s, s < t. Draws are keyed by s, so no two steps of a run share one."""

    def describe(self) -> str:
        """The sampler with all that changes its samples, except the number of steps: "DDIM(grid=uniform, eta=0.0)"."""
        settings = [each.name for each in fields(self) if each.name not in ("process", "steps")]
        return f"{type(self).__name__}({', '.join(f'{name}={described(getattr(self, name))}' for name in settings)})"

    def times(self, start: int) -> list[int]:
        """From `start` down to 0. A start below T takes its share of the steps, so the pace is the same."""
        if self.steps is None:
            return self.grid(start, start)
        return self.grid(start, max(1, round(self.steps * start / self.process.T)))

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
        times = self.times(start)
        for t, s in itertools.pairwise(times):
            state = self.step(denoiser, x, t, s, cond or {}, rng.at(s, ids))
            x = state.x_t
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
