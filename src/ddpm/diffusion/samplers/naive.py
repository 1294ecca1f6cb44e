"""Algorithm 1 of Cold Diffusion (Bansal et al. 2022): restore, degrade a little less, and again."""

from dataclasses import dataclass

from ddpm.base.rng import Draws
from ddpm.base.types import Cond
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.samplers.base import Sampler, State
from ddpm.diffusion.samplers.cold import trajectory_state


@dataclass(frozen=True)
class Naive(Sampler):
    """x_s = D(x0, z, s), for any forward process. An error of x0 stays in x_s, and errors add up.

    Where z is inferred, as Gaussian noise is, it is the same as algorithm 2.
    """

    def step(self, denoiser: Denoiser, state: State, s: int, cond: Cond, draws: Draws) -> State:
        z = trajectory_state(self, state, draws)
        prediction = denoiser(state.x_t, state.t, cond)
        believed = self.process.recover_noise(state.x_t, prediction.x0, state.t, z)
        return State(s, self.process.apply(prediction.x0, believed, s), prediction, z)
