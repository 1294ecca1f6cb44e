"""From a corrupted sample to what is believed about the clean one. Whatever changes that belief wraps a denoiser."""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Cond, Prediction, Time
from ddpm.diffusion.objective import Objective

X0_GUESS = "x0_guess"
"""The condition under which a sampler hands on the x0 that was predicted last, `[B, C, H, W]`."""


class Denoiser(Protocol):
    def __call__(self, x_t: Tensor, t: Time, cond: Cond) -> Prediction:
        """x_t: `[B, C, H, W]`; t in 1..T."""
        ...


@dataclass(frozen=True, eq=False)
class NetworkDenoiser:
    """A network together with the objective it was trained for.

    The only place that knows how the network numbers its times: from 0, as in all published checkpoints.
    """

    network: nn.Module
    objective: Objective

    def raw(self, x_t: Tensor, t: Time, cond: Cond) -> Tensor:
        """The network's output, at least float32, `[B, C', H, W]`; the first C channels belong to the objective."""
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
    """In training, a network that is conditioned on its previous prediction (Chen et al. 2023, "Analog Bits").

    For half of the samples it is first asked without a guess, outside of the gradient, then with its own answer. Which
    half is drawn for each sample, so it depends on no batch. In sampling the loop hands on the last prediction, and
    NetworkDenoiser is all that is needed.
    """

    draws: Draws

    def raw(self, x_t: Tensor, t: Time, cond: Cond) -> Tensor:
        with torch.no_grad():
            first = super().raw(x_t, t, cond)
            guess = self.objective.to_x0(first[:, : x_t.shape[1]], x_t, t)
            is_given = self.draws.integers("self-conditioning", 2).view(-1, *[1] * (x_t.ndim - 1))
        return super().raw(x_t, t, {**cond, X0_GUESS: guess * is_given})


@dataclass(frozen=True)
class StaticThresholding:
    """x0 held in [-1, 1], where images live. Ho et al. 2020 clip when sampling, never in the loss."""

    denoiser: Denoiser

    def __call__(self, x_t: Tensor, t: Time, cond: Cond) -> Prediction:
        prediction = self.denoiser(x_t, t, cond)
        return replace(prediction, x0=prediction.x0.clamp(-1, 1))


@dataclass(frozen=True)
class DynamicThresholding:
    """x0 held in [-s, s] and divided by s, the quantile of its own |x0|, at least 1 (Saharia et al. 2022, section 2.3).

    Against saturated images under strong guidance. percentile: a share in (0, 1], 0.995 in the paper. largest: the most
    that s may be; 1 is plain clipping.
    """

    denoiser: Denoiser
    percentile: float
    largest: float

    def __post_init__(self) -> None:
        if not 0 < check.number("percentile", self.percentile) <= 1:
            check.fail("percentile", self.percentile, "greater than 0 and at most 1")
        check.number("largest", self.largest, low=1)

    def __call__(self, x_t: Tensor, t: Time, cond: Cond) -> Prediction:
        prediction = self.denoiser(x_t, t, cond)
        x0 = prediction.x0
        size = x0.flatten(1).abs().to(torch.promote_types(x0.dtype, torch.float32))  # quantile takes no half precision
        bound = size.quantile(self.percentile, dim=1).clamp(1, self.largest).to(x0.dtype)
        bound = bound.view(-1, *[1] * (x0.ndim - 1))
        return replace(prediction, x0=x0.clamp(-bound, bound) / bound)


def no_wrapper(denoiser: Denoiser) -> Denoiser:
    """The denoiser in no wrapper."""
    return denoiser
