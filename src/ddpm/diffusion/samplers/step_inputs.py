"""Inputs of a network that change at each sampling step, in addition to the constant conditions."""

from dataclasses import dataclass, replace
from typing import Protocol

from ddpm.base.rng import Draws
from ddpm.base.types import Cond, Prediction
from ddpm.diffusion.denoiser import X0_GUESS

LATENT = "latent"
"""Name of the condition that holds a normal latent `[B, channels]`, from which a network computes a random x0."""


class StepInputs(Protocol):
    def __call__(self, prediction: Prediction | None, draws: Draws) -> Cond:
        """prediction: of the previous step, None at the first. draws: of this step."""
        ...


def last_prediction(prediction: Prediction | None, draws: Draws) -> Cond:
    """The previous prediction of x0, for a self-conditioned network."""
    return {} if prediction is None else {X0_GUESS: prediction.x0}


@dataclass(frozen=True)
class Latents:
    """channels: size of the latent. fixed: use one latent for all steps of a sample, instead of a new one for each."""

    channels: int
    fixed: bool = False

    def __call__(self, prediction: Prediction | None, draws: Draws) -> Cond:
        draws = replace(draws, step=0) if self.fixed else draws
        return {LATENT: draws.normal(LATENT, (self.channels,))}
