"""Guidance away from the errors of a weaker model (Karras et al. 2024, "Guiding a Diffusion Model with a Bad Version
of Itself")."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Cond, Prediction, Time
from ddpm.diffusion.coefficients import per_sample
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.guidance.interval import interval, scale_at


@dataclass(frozen=True)
class Autoguided:
    """x0 = x0_guide + scale * (x0 - x0_guide), both under the same condition; scale 1 is the model itself.

    guide: of the same data and schedule, smaller or trained for less. interval: as that of `ClassifierFree`.
    """

    denoiser: Denoiser
    guide: Denoiser
    process: GaussianDiffusion
    scale: float
    interval: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check.number("scale", self.scale, low=0)
        interval(self.interval)

    def __call__(self, x_t: Tensor, t: Time, cond: Cond) -> Prediction:
        prediction = self.denoiser(x_t, t, cond)
        scale = scale_at(self.scale, interval(self.interval), self.process.schedule, t)
        if isinstance(scale, float | int) and scale == 1:
            return prediction
        weaker = self.guide(x_t, t, cond).x0
        return replace(prediction, x0=torch.lerp(weaker, prediction.x0, per_sample(scale, weaker)))
