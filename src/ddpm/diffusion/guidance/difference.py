"""Guidance by the difference of two predictions: x0 = weaker + scale * (stronger - weaker).

The formula is the same for eps and v, which are affine in x0.
interval: the range of noise levels sigma / alpha with guidance; null: all (Kynkaanniemi et al. 2024, "Applying
Guidance in a Limited Interval").
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Cond, Prediction, Time
from ddpm.diffusion.coefficients import per_sample
from ddpm.diffusion.conditions.base import Condition
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.objective import Objective
from ddpm.diffusion.schedules.base import NoiseSchedule


@dataclass(frozen=True)
class ClassifierFree:
    """Extrapolates from the unconditional to the conditional prediction (Ho and Salimans 2022).

    scale: 0 is the unconditional model, 1 the conditional one, and more is guidance; scale - 1 is w in the paper.
    rescale: phi in [0, 1], how far the standard deviation of x0 over its pixels is moved back to that of the
    conditional x0 (Lin et al. 2024, eqs. 15-16). rescale_of: "x0", or "output", the network's output in place of x0, as
    in the paper and diffusers. Both are the same for a network that predicts x0.
    """

    denoiser: Denoiser
    condition: Condition
    process: GaussianDiffusion
    scale: check.NonNegativeNumber
    rescale: check.Share = 0.0
    rescale_of: Annotated[str, check.words("x0", "output")] = "x0"
    objective: Objective | None = None  # needed with rescale_of="output"
    interval: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check.fields(self)
        if self.rescale_of == "output" and self.objective is None:
            raise ValueError("rescale_of must be x0 without the objective of the network, got 'output'")
        check_interval(self.interval)
        if not self.condition.network_settings:
            raise ValueError("guidance=classifier_free needs a conditional model: train it with cond=class")
        if self.condition.dropout == 0 and self.scale != 1:
            raise ValueError(
                "guidance=classifier_free needs a model whose condition was dropped for some images: train it with "
                "cond.dropout=0.1 (this one has 0), or choose guidance=classifier or autoguidance"
            )

    def __call__(self, x_t: Tensor, t: Time, cond: Cond) -> Prediction:
        """Both predictions in one denoiser call with twice the batch; only one of them if the scale is 0 or 1."""
        scale = scale_at(self.scale, self.interval, self.process.schedule, t)
        null_cond = self.condition.unconditional(cond)
        if isinstance(scale, float | int) and scale in (0, 1):
            return self.denoiser(x_t, t, cond if scale == 1 else null_cond)
        both = {name: torch.cat([conditional, null_cond[name]]) for name, conditional in cond.items()}
        times = t if isinstance(t, int) else torch.cat([t, t])
        prediction = self.denoiser(torch.cat([x_t, x_t]), times, both)
        assert prediction.guidance_gradient is None, (
            "classifier guidance must wrap classifier-free guidance, not be wrapped by it"
        )
        conditional, unconditional = prediction.x0.chunk(2)
        x0 = torch.lerp(unconditional, conditional, per_sample(scale, unconditional))
        if self.rescale:
            x0 = self._rescaled(x0, conditional, x_t, t)
        extra = None if prediction.extra is None else prediction.extra.chunk(2)[0]
        return Prediction(x0, extra)

    def _rescaled(self, x0: Tensor, conditional: Tensor, x_t: Tensor, t: Time) -> Tensor:
        if self.rescale_of == "x0" or self.objective is None:
            return rescale_guidance(x0, conditional, self.rescale)
        guided, told = (
            self.objective.target(each, self.process.recover_noise(x_t, each, t), t) for each in (x0, conditional)
        )
        return self.objective.to_x0(rescale_guidance(guided, told, self.rescale), x_t, t)


@dataclass(frozen=True)
class Autoguided:
    """Extrapolates from a weaker model under the same condition (Karras et al. 2024, "Guiding a Diffusion Model with a
    Bad Version of Itself"). guide: a smaller or less trained model of the same schedule. scale: 1 is no guidance."""

    denoiser: Denoiser
    guide: Denoiser
    process: GaussianDiffusion
    scale: check.NonNegativeNumber
    interval: Sequence[float] | None = None

    def __post_init__(self) -> None:
        check.fields(self)
        check_interval(self.interval)

    def __call__(self, x_t: Tensor, t: Time, cond: Cond) -> Prediction:
        prediction = self.denoiser(x_t, t, cond)
        scale = scale_at(self.scale, self.interval, self.process.schedule, t)
        if isinstance(scale, float | int) and scale == 1:
            return prediction
        weaker = self.guide(x_t, t, cond).x0
        x0 = torch.lerp(weaker, prediction.x0, per_sample(scale, weaker))
        return replace(prediction, x0=x0, unclipped=None)


def scale_at(scale: float, interval: Sequence[float] | None, schedule: NoiseSchedule, t: Time) -> float | Tensor:
    """`scale` in the interval, and 1, no guidance, outside: a float for an int t, float64 `[B]` for times `[B]`."""
    if interval is None:
        return scale
    low, high = interval
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)  # no division by alpha, which may be 0
    above, below = low * alpha <= sigma, sigma / high <= alpha
    if isinstance(above, Tensor):
        return torch.where(above & below, scale, 1.0).double()
    return scale if above and below else 1.0


def check_interval(bounds: Sequence[float] | None) -> None:
    """ValueError unless bounds are None or [low, high]."""
    if bounds is None:
        return
    if not isinstance(bounds, Sequence) or isinstance(bounds, str) or len(bounds) != 2:
        check.fail("interval", bounds, "null or two noise levels sigma / alpha, as [0.3, 5.0]")
    low, high = (check.number("interval", bound, low=0) for bound in bounds)
    if low >= high:
        check.fail("interval", list(bounds), "[low, high] with low < high")


def rescale_guidance(x0: Tensor, conditional: Tensor, phi: float) -> Tensor:
    """x0, or an output of the network, with its deviation over pixels moved by a share phi to that of `conditional`."""
    dims = tuple(range(1, x0.ndim))
    deviation = x0.std(dim=dims, keepdim=True)
    ratio = torch.where(
        deviation > 0, conditional.std(dim=dims, keepdim=True) / deviation, 1.0
    )  # 0 / 0 in a constant image
    return x0 * (phi * ratio + (1 - phi))
