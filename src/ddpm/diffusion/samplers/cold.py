"""The two algorithms of Cold Diffusion (Bansal et al. 2022), for any forward process.

If z is inferred from x_t and x0, as Gaussian noise is ("hot diffusion"), both are equal to deterministic DDIM.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from ddpm.base.rng import Draws
from ddpm.base.types import Cond
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.samplers.base import Sampler, State


@dataclass(frozen=True)
class Naive(Sampler):
    """Algorithm 1, which predicts x0 and degrades it to the next time: x_s = D(x0, z, s).

    Errors of the predicted x0 stay in x_s and accumulate.
    """

    def step(self, denoiser: Denoiser, state: State, s: int, cond: Cond, draws: Draws) -> State:
        z = trajectory_state(self, state, draws)
        prediction = denoiser(state.x_t, state.t, cond)
        believed = self.process.recover_noise(state.x_t, prediction.x0, state.t, z)
        return State(s, self.process.apply(prediction.x0, believed, s), prediction, z)


@dataclass(frozen=True)
class Cold(Sampler):
    """Algorithm 2: x_s = x_t - D(x0, z, t) + D(x0, z, s).

    An error of the predicted x0 changes x_s only by the difference of its effects on D(x0, z, s) and D(x0, z, t).
    """

    def step(self, denoiser: Denoiser, state: State, s: int, cond: Cond, draws: Draws) -> State:
        z = trajectory_state(self, state, draws)
        prediction = denoiser(state.x_t, state.t, cond)
        x0 = prediction.x0
        believed = self.process.recover_noise(state.x_t, x0, state.t, z)
        x_s = state.x_t - self.process.apply(x0, believed, state.t) + self.process.apply(x0, believed, s)
        return State(s, x_s, prediction, z)


def trajectory_state(sampler: Sampler, state: State, draws: Draws) -> Tensor:
    """z of the samples, drawn once. It is keyed by their ids and T, wherever the trajectory begins."""
    if state.memory is not None:
        return state.memory
    return sampler.process.draw(state.x_t, replace(draws, step=sampler.process.T))
