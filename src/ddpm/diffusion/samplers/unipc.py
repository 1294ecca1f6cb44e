"""UniPC: a predictor and a corrector of any order from the same evaluations (Zhao et al. 2023, algorithms 5-8)."""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Cond
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.samplers.base import GaussianSampler, State
from ddpm.diffusion.samplers.multistep import Past, final_order, multistep_update, with_signal


class UniPCMemory(NamedTuple):
    """past: predictions, newest first. x_t: start of the last step. order: that of its predictor."""

    past: tuple[Past, ...]
    x_t: Tensor
    order: int


@dataclass(frozen=True)
class UniPC(GaussianSampler):
    """The deterministic form for x0 with B(h) = exp(h) - 1, "bh2".

    predictor_order: 1..3; the corrector increases the order by one without a new evaluation. The first steps use the
    predictions available so far. The step to 0, where lambda is infinite, is a DDIM step. lower_order_final: the order
    is at most the number of steps that are left, as in the authors' code and diffusers, so the step before the last is
    of order 2.
    """

    predictor_order: Annotated[int, check.integers(1, 3)]
    lower_order_final: bool = False

    @property
    def order(self) -> int:
        return self.predictor_order + 1

    def step(self, denoiser: Denoiser, state: State, s: int, cond: Cond, draws: Draws) -> State:
        t, x_t, memory = state.t, state.x_t, state.memory
        prediction = denoiser(x_t, t, cond)
        here, schedule = Past(t, prediction.x0), self.process.schedule
        past: tuple[Past, ...] = ()
        if memory is not None:
            x_t = multistep_update(schedule, memory.x_t, memory.past[: memory.order], t, here)
            past = memory.past
        known = with_signal(schedule, (here, *past)[: self.predictor_order])
        order = final_order(len(known), state, s, self.lower_order_final)
        x_s = multistep_update(schedule, x_t, known[:order], s)
        return State(s, x_s, prediction, UniPCMemory(known, x_t, order))
