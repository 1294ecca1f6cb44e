"""The bound of a variational autoencoder (Kingma and Welling 2014, eq. 10), as a baseline."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Cond, LossTerms
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.time_sampler import TimeSampler


@dataclass(frozen=True)
class VAELoss:
    """-log p(x0 | z) + KL(q(z | x0) || p(z)), in nats per dimension of x0, without the constant of the Gaussian.

    p(x0 | z) is Gaussian with the mean `decode(z)`. deviation: its standard deviation for pixels in [-1, 1]. A smaller
    one gives sharper images, but z matches the prior less. parts: "error" (mean squared) and "kl" in nats per image.
    """

    process: ForwardProcess
    time_sampler: TimeSampler
    deviation: check.PositiveNumber
    idle: ClassVar = ("schedule", "noise", "process", "time_sampler", "variance", "timestep_spacing")

    def __post_init__(self) -> None:
        check.fields(self)
        if self.process.T != 1:
            check.fail("schedule.num_timesteps", self.process.T, "1 with loss=vae, whose samples are made in one step")

    def __call__(self, denoiser: NetworkDenoiser, x0: Tensor, cond: Cond, draws: Draws) -> LossTerms:
        """x0: `[B, C, H, W]`; cond is not used."""
        network: Any = denoiser.network
        if not hasattr(network, "encode"):
            check.fail("model", type(network).__name__, "an autoencoder with loss=vae, as model=vae_tiny")
        mean, log_variance = (each.float() for each in network.encode(x0))
        latent = mean + (log_variance / 2).exp() * draws.normal("latent", tuple(mean.shape[1:])).to(mean.dtype)
        error = (network.decode(latent).to(x0.dtype) - x0).square().flatten(1).mean(1)
        kl = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
        total = error / (2 * self.deviation**2) + kl / math.prod(x0.shape[1:])
        return LossTerms(total, torch.ones_like(draws.ids), {"error": error, "kl": kl})
