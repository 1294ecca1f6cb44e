"""From a corrupted sample to what is believed about the clean one. Whatever changes that belief wraps a denoiser."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ddpm.diffusion.objective import Objective
from ddpm.types import Cond, Prediction, Time


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
        """The network's output in float32, `[B, C', H, W]`; the first C channels belong to the objective."""
        time = torch.full((len(x_t),), t - 1, device=x_t.device) if isinstance(t, int) else t - 1
        return self.network(x_t, time, **cond).float()

    def __call__(self, x_t: Tensor, t: Time, cond: Cond) -> Prediction:
        output = self.raw(x_t, t, cond)
        channels = x_t.shape[1]
        extra = output[:, channels:] if output.shape[1] > channels else None
        return Prediction(self.objective.to_x0(output[:, :channels], x_t, t), extra)


@dataclass(frozen=True)
class Clipped:
    """x0 held in [-1, 1], where images live. Ho et al. 2020 clip when sampling, never in the loss."""

    denoiser: Denoiser

    def __call__(self, x_t: Tensor, t: Time, cond: Cond) -> Prediction:
        prediction = self.denoiser(x_t, t, cond)
        return Prediction(prediction.x0.clamp(-1, 1), prediction.extra)


def plain(denoiser: Denoiser) -> Denoiser:
    """The denoiser in no wrapper."""
    return denoiser
