"""The variance of the reverse step p(x_s | x_t), which the mean of the network's prediction leaves open."""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ddpm.diffusion.coefficients import Coefficient, per_sample
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.types import Prediction, Time


class Variance(Protocol):
    num_outputs: ClassVar[int]
    """Of the network for each channel of the image: 1, or 2 where it predicts the variance too."""

    def __call__(self, schedule: NoiseSchedule, prediction: Prediction, s: Time, t: Time) -> Coefficient:
        """A float, or float64 `[B]` for times `[B]`; where each pixel has its own, `[B, C, H, W]`. Never 0.

        In the step to s = 0 it is that of the decoder, which samplers leave out.
        """
        ...


@dataclass(frozen=True)
class FixedSmall:
    """The variance of the posterior: right if all data were one point (Ho et al. 2020, section 3.2).

    That is 0 at s = 0, where the smallest that is not stands in its place (see `smallest`).
    """

    num_outputs: ClassVar[int] = 1

    def __call__(self, schedule: NoiseSchedule, prediction: Prediction, s: Time, t: Time) -> Coefficient:
        return smallest(schedule, s, t)


@dataclass(frozen=True)
class FixedLarge:
    """The variance of the forward step: right if the data were standard normal (Ho et al. 2020, section 3.2)."""

    num_outputs: ClassVar[int] = 1

    def __call__(self, schedule: NoiseSchedule, prediction: Prediction, s: Time, t: Time) -> Coefficient:
        return schedule.beta(s, t)


@dataclass(frozen=True)
class LearnedRange:
    """Between the two in each pixel, on a logarithmic scale (Nichol and Dhariwal 2021, eq. 15).

    The network says where with C channels beyond the objective's: -1 is the small one, 1 the large one. Nothing holds
    its output within these, as in their code.
    """

    num_outputs: ClassVar[int] = 2

    def __call__(self, schedule: NoiseSchedule, prediction: Prediction, s: Time, t: Time) -> Coefficient:
        place, image = prediction.extra, prediction.x0
        if place is None or place.shape != image.shape:
            raise ValueError(
                f"variance=learned_range needs a network with model.out_channels={2 * image.shape[1]}, trained with "
                "loss=hybrid or loss=vlb; this one has no outputs for it, so choose variance=small or variance=large"
            )
        low, high = (logarithm(c, image) for c in (smallest(schedule, s, t), schedule.beta(s, t)))
        return ((place + 1) / 2 * (high - low) + low).exp()


def smallest(schedule: NoiseSchedule, s: Time, t: Time) -> Coefficient:
    """The posterior's variance; at s = 0, where that is 0, what it is in the next step up, from 2 t to t.

    For t = 1 that is the second entry of the paper's table in place of the first, as in the code of Ho et al. 2020 and
    Nichol and Dhariwal 2021. Where no step is left above (t = T), the variance of the forward step.
    """
    if isinstance(s, int) and isinstance(t, int):
        if s > 0:
            return schedule.posterior_variance(s, t)
        return schedule.beta(s, t) if t == schedule.T else schedule.posterior_variance(t, min(2 * t, schedule.T))
    s, t = torch.as_tensor(s), torch.as_tensor(t)
    above = schedule.posterior_variance(t, (2 * t).clamp(max=schedule.T))
    first = torch.where(t == schedule.T, schedule.beta(s, t), above)
    return torch.where(s > 0, schedule.posterior_variance(s, t), first)


def logarithm(c: Coefficient, like: Tensor) -> Coefficient:
    shaped = per_sample(c, like)
    return shaped.log() if isinstance(shaped, Tensor) else math.log(shaped)
