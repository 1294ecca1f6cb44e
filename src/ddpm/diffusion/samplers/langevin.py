"""Predictor and corrector: Langevin steps after each ancestral step (Song et al. 2021, algorithms 3 and 5)."""

from dataclasses import dataclass

from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Cond
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.samplers.base import GaussianSampler, State
from ddpm.diffusion.variance import Variance


@dataclass(frozen=True)
class Langevin(GaussianSampler):
    """corrections: Langevin steps at each time except 0. snr: their size, r in the paper (0.16 there).

    The step size contains sigma, where their code has the ratio of the norms of noise and score over the batch, an
    estimate of sigma. So a sample does not depend on its batch. The step size does not decrease with more steps, so the
    sampler has no order of convergence.
    """

    variance: Variance
    corrections: check.NonNegativeInt
    snr: check.PositiveNumber

    def evaluations(self) -> int:
        steps = super().evaluations()
        return steps + self.corrections * (steps - 1)

    def step(self, denoiser: Denoiser, state: State, s: int, cond: Cond, draws: Draws) -> State:
        prediction = denoiser(state.x_t, state.t, cond)
        reverse = self.process.reverse(prediction, state.x_t, s, state.t, self.variance)
        if s == 0:
            return State(s, reverse.mode(), prediction)
        x = reverse.sample(draws, "step")
        for number in range(self.corrections):
            prediction = denoiser(x, s, cond)
            x = self.corrected(x, self.process.score(x, prediction.x0, s), s, draws, f"correction {number}")
        return State(s, x, prediction)

    def corrected(self, x: Tensor, score: Tensor, s: int, draws: Draws, stream: str) -> Tensor:
        z = self.process.reverse_noise_like(draws, stream, x)
        size = self.step_size(s)
        return (x + size * score).add_(z, alpha=(2 * size) ** 0.5)

    def step_size(self, s: int) -> float:
        """epsilon of the paper's algorithm 5."""
        schedule = self.process.schedule
        return 2 * (1 - schedule.beta(s - 1, s)) * (self.snr * schedule.sigma(s)) ** 2
