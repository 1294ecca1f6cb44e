"""The reverse Markov chain of Ho et al. 2020 (algorithm 2), in any number of steps."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Self

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Cond
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import MarkovProcess, demand_markov
from ddpm.diffusion.samplers.base import Sampler, State
from ddpm.diffusion.samplers.step_inputs import Latents
from ddpm.diffusion.variance import Variance


@dataclass(frozen=True)
class Ancestral(Sampler):
    """Draws x_s from the model's p(x_s | x_t) with the given variance; the step to 0 adds no noise.

    latent: the latent of a network that has one (Xiao et al. 2022), "fresh" for each step or "fixed" for all steps.
    """

    process: MarkovProcess
    variance: Variance
    latent: Annotated[str, check.words("fresh", "fixed")] = "fresh"
    uses_guidance_gradient: ClassVar[bool] = True
    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        demand_markov(self.process, "sampler=ancestral", "sampler=cold")

    @classmethod
    def refuse_latents(cls) -> None:
        """Latents are supported: the posterior is valid for an x0 that is drawn from a distribution."""

    def with_latents(self, channels: int) -> Self:
        return replace(self, step_inputs=Latents(channels, self.latent == "fixed"))

    def step(self, denoiser: Denoiser, state: State, s: int, cond: Cond, draws: Draws) -> State:
        prediction = denoiser(state.x_t, state.t, cond)
        reverse = self.process.reverse(prediction, state.x_t, s, state.t, self.variance)
        return State(s, reverse.sample(draws, "step") if s > 0 else reverse.mode(), prediction)
