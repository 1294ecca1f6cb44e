"""The variance of the reverse step p(x_s | x_t), which the mean of the network's prediction leaves open."""

import bisect
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Prediction, Time
from ddpm.diffusion.coefficients import Coefficient, per_sample
from ddpm.diffusion.schedules.base import NoiseSchedule


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


@dataclass(frozen=True, eq=False, repr=False)
class Analytic:
    """The best that is one number for each time: what is on average not known of x0 widens the posterior.

    Analytic-DPM (Bao et al. 2022a, theorem 1), in the form that stays best when the mean is imperfect (Bao et al.
    2022b, theorem 3): the mean squared error of the predicted x0 stands for its posterior variance. It is estimated
    from images at `times`, rising, and is in between on a logarithmic scale; num_images, num_times: how well. Without
    errors it cannot be used yet.
    """

    num_outputs: ClassVar[int] = 1
    num_images: int
    num_times: int
    times: Sequence[int] = ()
    errors: Sequence[float] = ()

    def __post_init__(self) -> None:
        check.positive_int("num_images", self.num_images)
        check.positive_int("num_times", self.num_times)
        assert len(self.times) == len(self.errors)

    def __repr__(self) -> str:
        digest = hashlib.sha256(repr(list(zip(self.times, self.errors, strict=True))).encode()).hexdigest()[:8]
        return f"Analytic(num_images={self.num_images}, num_times={self.num_times}, errors={digest})"

    def __call__(self, schedule: NoiseSchedule, prediction: Prediction, s: Time, t: Time) -> Coefficient:
        of_x0 = schedule.alpha(s) * schedule.beta(s, t) / schedule.sigma(t) ** 2
        return schedule.posterior_variance(s, t) + of_x0**2 * self.error(t)

    def error(self, t: Time) -> Coefficient:
        """E |x0 - x0_hat|^2 at t, one pixel's."""
        if not self.errors:
            raise ValueError(
                "variance=analytic is estimated from a trained model and its data: choose it in sample.py or "
                "evaluate.py, and another for training"
            )
        if isinstance(t, Tensor):
            each = [self.error(int(time)) for time in t]
            return torch.tensor(each, dtype=torch.float64, device=t.device)
        above = min(bisect.bisect_left(self.times, t), len(self.times) - 1)
        below = max(above - 1, 0)
        if self.times[above] <= t or above == below:
            return self.errors[above]
        share = (t - self.times[below]) / (self.times[above] - self.times[below])
        return math.exp((1 - share) * math.log(self.errors[below]) + share * math.log(self.errors[above]))

    def measured_times(self, T: int) -> list[int]:
        """Half of them evenly spaced, half dense near 0, where the error changes fastest."""
        num = min(self.num_times, T)
        even = {1 + round((T - 1) * k / max(num - 1, 1)) for k in range(0, num, 2)}
        dense = {round(T ** (k / max(num - 1, 1))) for k in range(num)}
        return sorted(even | dense | {1, T})
