"""Denoisers: functions from x_t to a prediction of x0. Whatever changes the prediction wraps a denoiser."""

from dataclasses import dataclass, replace
from typing import Annotated, Protocol

import torch
from torch import Tensor, nn

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Cond, Prediction, Time
from ddpm.diffusion.objective import Objective

X0_GUESS = "x0_guess"
"""Name of the condition that holds the previous prediction of x0, `[B, C, H, W]`."""


class Denoiser(Protocol):
    def __call__(self, x_t: Tensor, t: Time, cond: Cond) -> Prediction:
        """x_t: `[B, C, H, W]`; t in 1..T."""
        ...


@dataclass(frozen=True, eq=False)
class NetworkDenoiser:
    """A network together with the objective it was trained for.

    Networks take times 0..T-1, as in all published checkpoints. This class alone converts them from t in 1..T.
    """

    network: nn.Module
    objective: Objective

    def raw(self, x_t: Tensor, t: Time, cond: Cond) -> Tensor:
        """The network's output `[B, C', H, W]`, at least float32. Its first C channels are those of the objective."""
        if X0_GUESS in cond and not getattr(self.network, "self_condition", False):
            cond = {name: value for name, value in cond.items() if name != X0_GUESS}
        time = torch.full((len(x_t),), t - 1, device=x_t.device) if isinstance(t, int) else t - 1
        output = self.network(x_t, time, **cond)
        return output.to(torch.promote_types(output.dtype, torch.float32))

    def __call__(self, x_t: Tensor, t: Time, cond: Cond) -> Prediction:
        output = self.raw(x_t, t, cond)
        channels = x_t.shape[1]
        extra = output[:, channels:] if output.shape[1] > channels else None
        return Prediction(self.objective.to_x0(output[:, :channels], x_t, t), extra)


@dataclass(frozen=True, eq=False)
class SelfConditioned(NetworkDenoiser):
    """A network that is conditioned on its previous prediction, in training (Chen et al. 2023, "Analog Bits").

    A first pass without gradient predicts x0. In the second pass, half of the samples get this prediction, and the
    others get zeros; each sample's own random numbers decide. In sampling, `NetworkDenoiser` is sufficient, because the
    sampling loop provides the previous prediction.
    """

    draws: Draws

    def raw(self, x_t: Tensor, t: Time, cond: Cond) -> Tensor:
        with torch.no_grad():
            first = super().raw(x_t, t, cond)
            guess = self.objective.to_x0(first[:, : x_t.shape[1]], x_t, t)
            is_given = self.draws.integers("self-conditioning", 2).view(-1, *[1] * (x_t.ndim - 1))
        return super().raw(x_t, t, {**cond, X0_GUESS: guess * is_given})


@dataclass(frozen=True)
class StaticThresholding(check.Checked):
    """Clamps x0 to [-largest, largest]: 1 for images. Ho et al. 2020 clip in sampling, never in the loss."""

    denoiser: Denoiser
    largest: check.PositiveNumber = 1.0

    def __call__(self, x_t: Tensor, t: Time, cond: Cond) -> Prediction:
        prediction = self.denoiser(x_t, t, cond)
        x0 = prediction.x0
        return replace(prediction, x0=x0.clamp(-self.largest, self.largest), unclipped=x0)


@dataclass(frozen=True)
class DynamicThresholding:
    """Clamps x0 to [-s, s] and divides it by s, a quantile of each sample's |x0| (Saharia et al. 2022, section 2.3).

    This reduces saturation under strong guidance. percentile: the quantile, in (0, 1]; 0.995 in the paper. s is clamped
    to [1, largest]; largest=1 is static thresholding.
    """

    denoiser: Denoiser
    percentile: float
    largest: Annotated[float, check.numbers(low=1)]

    def __post_init__(self) -> None:
        if not 0 < check.number("percentile", self.percentile) <= 1:
            check.fail("percentile", self.percentile, "greater than 0 and at most 1")
        check.fields(self)

    def __call__(self, x_t: Tensor, t: Time, cond: Cond) -> Prediction:
        prediction = self.denoiser(x_t, t, cond)
        x0 = prediction.x0
        size = x0.flatten(1).abs().to(torch.promote_types(x0.dtype, torch.float32))  # no quantile in half precision
        bound = size.quantile(self.percentile, dim=1).clamp(1, self.largest).to(x0.dtype)
        bound = bound.view(-1, *[1] * (x0.ndim - 1))
        return replace(prediction, x0=x0.clamp(-bound, bound) / bound, unclipped=x0)


def no_wrapper(denoiser: Denoiser) -> Denoiser:
    """The denoiser, unchanged."""
    return denoiser
