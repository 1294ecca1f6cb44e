"""DPM-Solver++ (2M): the multistep solver of second order of Lu et al. 2022 (algorithm 2)."""

from dataclasses import dataclass

from ddpm.base.rng import Draws
from ddpm.base.types import Cond
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.samplers.base import GaussianSampler, State
from ddpm.diffusion.samplers.multistep import Past, combine, constant_x0, span


@dataclass(frozen=True)
class DPMSolver(GaussianSampler):
    """x0 in the middle of the step is taken from a line through its last two values; no noise.

    The first step and the one to 0, where lambda is infinite, are DDIM's.
    """

    @property
    def order(self) -> int:
        return 2

    def step(self, denoiser: Denoiser, state: State, s: int, cond: Cond, draws: Draws) -> State:
        t, x_t, past = state.t, state.x_t, state.memory
        prediction = denoiser(x_t, t, cond)
        x0, schedule = prediction.x0, self.process.schedule
        of_x_t, of_x0 = constant_x0(schedule, s, t)
        memory = Past(t, x0)
        if past is None or s == 0:
            return State(s, combine(x_t, of_x_t, (of_x0, x0)), prediction, memory)
        ahead = span(schedule, s, t) / (2 * span(schedule, t, past.t))
        x_s = combine(x_t, of_x_t, (of_x0 * (1 + ahead), x0), (-of_x0 * ahead, past.x0))
        return State(s, x_s, prediction, memory)
