"""Variances of the reverse step p(x_s | x_t), which the prediction of x0 does not determine."""

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
    """Network outputs for each channel of the image: 1, or 2 if the network predicts the variance too."""

    def __call__(self, schedule: NoiseSchedule, prediction: Prediction, s: Time, t: Time) -> Coefficient:
        """A float for int times, float64 `[B]` for times `[B]`, or `[B, C, H, W]` if pixels differ. Never 0.

        At s = 0 this is the variance of the decoder, which samplers do not use.
        """
        ...


@dataclass(frozen=True)
class FixedSmall:
    """The variance of the posterior, optimal if the data are a single point (Ho et al. 2020, section 3.2).

    At s = 0 the posterior variance is 0, and a positive one is used instead (see `smallest`).
    """

    num_outputs: ClassVar[int] = 1

    def __call__(self, schedule: NoiseSchedule, prediction: Prediction, s: Time, t: Time) -> Coefficient:
        return smallest(schedule, s, t)


@dataclass(frozen=True)
class FixedLarge:
    """The variance of the forward step, optimal if the data are standard normal (Ho et al. 2020, section 3.2)."""

    num_outputs: ClassVar[int] = 1

    def __call__(self, schedule: NoiseSchedule, prediction: Prediction, s: Time, t: Time) -> Coefficient:
        return schedule.beta(s, t)


@dataclass(frozen=True)
class PublishedFixedLarge:
    """`FixedLarge`, but at s = 0 the variance of `FixedSmall`.

    This is "fixedlarge" in the code of Ho et al. 2020 and Nichol and Dhariwal 2021. It is needed to compare bits per
    dimension with theirs (up to 0.41 in L_0). Samples are those of `FixedLarge`.
    """

    num_outputs: ClassVar[int] = 1

    def __call__(self, schedule: NoiseSchedule, prediction: Prediction, s: Time, t: Time) -> Coefficient:
        if isinstance(s, int) and isinstance(t, int):
            return schedule.beta(s, t) if s > 0 else smallest(schedule, s, t)
        return torch.where(torch.as_tensor(s) > 0, schedule.beta(s, t), smallest(schedule, s, t))


@dataclass(frozen=True)
class LearnedRange:
    """Interpolates between small and large variance in log space for each pixel (Nichol and Dhariwal 2021, eq. 15).

    The network predicts the position in C channels after those of the objective: -1 is the small variance, 1 the large
    one. The output is not clamped, as in their code.
    """

    num_outputs: ClassVar[int] = 2

    def __call__(self, schedule: NoiseSchedule, prediction: Prediction, s: Time, t: Time) -> Coefficient:
        place, image = prediction.extra, prediction.x0
        if place is None or place.shape != image.shape:
            raise ValueError(
                f"variance=learned_range needs a network with model.out_channels={2 * image.shape[1]}, trained with "
                "loss=hybrid or loss=vlb; this network has no such outputs, so choose variance=small or variance=large"
            )
        low, high = (logarithm(c, image) for c in (smallest(schedule, s, t), schedule.beta(s, t)))
        return ((place + 1) / 2 * (high - low) + low).exp()


def smallest(schedule: NoiseSchedule, s: Time, t: Time) -> Coefficient:
    """The posterior variance; at s = 0, where it is 0, the posterior variance of the next step above, from 2 t to t.

    For t = 1 this replaces the first entry of the table by the second, as in the code of Ho et al. 2020 and Nichol and
    Dhariwal 2021. For t = T there is no step above, and the variance of the forward step is used.
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
    """The optimal variance that depends only on the time: Analytic-DPM (Bao et al. 2022a, theorem 1).

    In place of the posterior variance of x0 it uses the mean squared error of the predicted x0, which is optimal for an
    imperfect mean too (Bao et al. 2022b, theorem 3). errors: this error at the rising `times`, with log-linear
    interpolation in between. It is estimated from num_images images at about num_times times. Without `errors`, calls
    raise ValueError.
    """

    num_outputs: ClassVar[int] = 1
    num_images: check.PositiveInt
    num_times: check.PositiveInt
    times: Sequence[int] = ()
    errors: Sequence[float] = ()

    def __post_init__(self) -> None:
        check.fields(self)
        assert len(self.times) == len(self.errors)

    def __repr__(self) -> str:
        digest = hashlib.sha256(repr(list(zip(self.times, self.errors, strict=True))).encode()).hexdigest()[:8]
        return f"Analytic(num_images={self.num_images}, num_times={self.num_times}, errors={digest})"

    def __call__(self, schedule: NoiseSchedule, prediction: Prediction, s: Time, t: Time) -> Coefficient:
        of_x0 = schedule.alpha(s) * schedule.beta(s, t) / schedule.sigma(t) ** 2
        return schedule.posterior_variance(s, t) + of_x0**2 * self.error(t)

    def error(self, t: Time) -> Coefficient:
        """E |x0 - x0_hat|^2 at t, per pixel."""
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
        """Times in 1..T, half of them evenly spaced, half dense near 0, where the error changes fastest."""
        num = min(self.num_times, T)
        even = {1 + round((T - 1) * k / max(num - 1, 1)) for k in range(0, num, 2)}
        dense = {round(T ** (k / max(num - 1, 1))) for k in range(num)}
        return sorted(even | dense | {1, T})
