"""The reverse Markov chain of Ho et al. 2020 (algorithm 2), in any number of steps."""

from dataclasses import dataclass

from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.gaussian import per_sample
from ddpm.diffusion.samplers.base import Sampler, State
from ddpm.diffusion.variance import Variance
from ddpm.rng import Draws
from ddpm.types import Cond


@dataclass(frozen=True)
class Ancestral(Sampler):
    """x_s from the posterior's mean at the predicted x0 and the given variance; no noise in the step to 0."""

    variance: Variance

    def step(self, denoiser: Denoiser, x_t: Tensor, t: int, s: int, cond: Cond, draws: Draws) -> State:
        prediction = denoiser(x_t, t, cond)
        mean, _ = self.process.posterior(prediction.x0, x_t, s, t)
        if s == 0:
            return State(s, mean, prediction)
        scale = per_sample(self.variance(self.process, prediction, s, t) ** 0.5, mean)
        noise = draws.normal("step", tuple(x_t.shape[1:])).to(mean.dtype)
        return State(s, mean + scale * noise, prediction)
