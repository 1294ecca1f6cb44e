"""Euler's method on the probability-flow ODE in sigma / alpha (Karras et al. 2022, table 1), with their churn."""

from dataclasses import dataclass

from ddpm.base.types import Cond
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.samplers.base import State
from ddpm.diffusion.samplers.edm import EDMSampler
from ddpm.diffusion.samplers.multistep import combine, constant_x0


@dataclass(frozen=True)
class Euler(EDMSampler):
    """Without churn it is DDIM with eta 0."""

    @property
    def order(self) -> int:
        return 1

    def solve(self, denoiser: Denoiser, state: State, s: int, cond: Cond) -> State:
        prediction = denoiser(state.x_t, state.t, cond)
        of_x_t, of_x0 = constant_x0(self.process.schedule, s, state.t)
        return State(s, combine(state.x_t, of_x_t, (of_x0, prediction.x0)), prediction)
