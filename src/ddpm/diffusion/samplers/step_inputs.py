"""What a network is given anew at each sampling step, beside the conditions that stay."""

from dataclasses import dataclass, replace
from typing import Protocol

from ddpm.base.rng import Draws
from ddpm.base.types import Cond, Prediction
from ddpm.diffusion.denoiser import X0_GUESS

LATENT = "latent"
"""The condition by which a network draws x0 from a distribution, instead of its mean: normal, `[B, channels]`."""


class StepInputs(Protocol):
    def __call__(self, prediction: Prediction | None, draws: Draws) -> Cond:
        """prediction: of the step before, None at the first. draws: those of this step."""
        ...


def last_prediction(prediction: Prediction | None, draws: Draws) -> Cond:
    """The x0 that was predicted last, for a self-conditioned network."""
    return {} if prediction is None else {X0_GUESS: prediction.x0}


@dataclass(frozen=True)
class Latents:
    """channels: of the latent. fixed: the same one at all steps of a sample, instead of a new one at each."""

    channels: int
    fixed: bool = False

    def __call__(self, prediction: Prediction | None, draws: Draws) -> Cond:
        draws = replace(draws, step=0) if self.fixed else draws
        return {LATENT: draws.normal(LATENT, (self.channels,))}
