"""What trains the first stage of latent diffusion: an autoencoder against a discriminator of patches.

Rombach et al. 2022, section 3.1 and appendix G; the discriminator and its weight are those of Esser et al. 2021. Sums,
means and weights are those of the authors' code, in which both kinds differ.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import BalancedTerm, LossTerms
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.losses import Example, TurnLoss
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.time_sampler import TimeSampler

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""A distance `[B]` of two batches of images in [-1, 1], differentiable."""


class Reconstruction(NamedTuple):
    """image: `[B, C, H, W]`. penalty: `[B]`, what the loss adds for the latents. parts: of it, for the log."""

    image: Tensor
    penalty: Tensor
    parts: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class FirstStageLoss(ABC):
    """Absolute error + perceptual distance + a penalty of the latents; against an adversary, if there is one.

    The network's turn comes first; the adversary, `adversary(images) -> logits [B, 1, h, w]` of patches, then meets the
    network that has just learned, in a forward pass and with latents of its own. From step adversary_start (from 0) on
    the network's loss has the term -D(reconstruction), whose weight is adversary_weight times that of `BalancedTerm` at
    the decoder's last convolution. Before, the adversary learns nothing, and its optimizer counts steps, as in the
    authors' code. perceptual: None for none.
    """

    process: ForwardProcess
    time_sampler: TimeSampler
    adversary: nn.Module | None = None
    perceptual: Perceptual | None = None
    perceptual_weight: check.NonNegativeNumber
    adversary_weight: check.NonNegativeNumber
    adversary_start: check.NonNegativeInt

    judged: ClassVar[str] = "images"
    idle: ClassVar = ("schedule", "noise", "process", "time_sampler")
    double_backward: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check.fields(self)
        if self.process.T != 1:
            check.fail("schedule.num_timesteps", self.process.T, "1 for a first stage, which knows no times")

    @property
    def turns(self) -> Mapping[str, TurnLoss]:
        """The authors' order: the adversary meets the network that has just learned."""
        others = {} if self.adversary is None else {"adversary": self.adversary_terms}
        return {"network": self.network_terms, **others}

    @property
    def fixed_networks(self) -> tuple[nn.Module, ...]:
        return (self.perceptual,) if isinstance(self.perceptual, nn.Module) else ()

    @abstractmethod
    def reconstruct(self, network: Any, x0: Tensor, draws: Draws) -> Reconstruction: ...

    @abstractmethod
    def distance(self, network: Any, error: Tensor) -> Tensor:
        """`[B]`, of the error `[B, C, H, W]`."""

    def network_terms(self, denoiser: NetworkDenoiser, example: Example) -> LossTerms:
        """parts: "error" (mean absolute), "perceptual", "logit" (of reconstructions) and those of the penalty."""
        network: Any = denoiser.network
        x0, found = example.x0, self.reconstruct(network, example.x0, example.draws)
        error = (found.image - x0).abs()
        parts = {"error": error.flatten(1).mean(1)}
        if self.perceptual is not None:
            parts["perceptual"] = self.perceptual(found.image, x0).to(error.dtype)
            error = error + self.perceptual_weight * parts["perceptual"][:, None, None, None]
        total = self.distance(network, error) + found.penalty
        balanced = None
        if self.adversary is not None:
            logit = None
            if example.step >= self.adversary_start:
                logit = patch_mean(self.adversary(found.image))
            parts["logit"] = torch.full_like(total, torch.nan) if logit is None else logit
            values = None if logit is None else -logit
            balanced = BalancedTerm(values, network.last_weight, self.adversary_weight)
        return LossTerms(total, times(example), {**parts, **found.parts}, balanced=balanced)

    def adversary_terms(self, denoiser: NetworkDenoiser, example: Example) -> LossTerms:
        """The hinge loss, (relu(1 - D(x0)) + relu(1 + D(reconstruction))) / 2. parts: the logits."""
        adversary, x0 = self.adversary, example.x0
        assert adversary is not None
        if example.step < self.adversary_start:
            nothing = sum((0 * parameter.sum() for parameter in adversary.parameters()), x0.new_zeros(len(x0)))
            unknown = torch.full_like(nothing, torch.nan).detach()
            return LossTerms(nothing, times(example), {"logit_real": unknown, "logit_fake": unknown})
        with torch.no_grad():
            fake = self.reconstruct(denoiser.network, x0, example.draws).image
        real_logit, fake_logit = adversary(x0), adversary(fake)
        total = patch_mean(F.relu(1 - real_logit) + F.relu(1 + fake_logit)) / 2
        logits = {"logit_real": patch_mean(real_logit), "logit_fake": patch_mean(fake_logit)}
        return LossTerms(total, times(example), logits)


@dataclass(frozen=True, eq=False, kw_only=True)
class FirstStageKL(FirstStageLoss):
    """The sum of (error + perceptual distance) / e^s + s over an image + kl_weight * KL(q(z | x0) || N(0, 1)).

    s, the log of the scale of p(x0 | z), is 0 unless the network learns it (model.learn_log_scale). The authors' code
    declares it as a parameter which no optimizer holds. parts: "kl", in nats an image.
    """

    kl_weight: check.NonNegativeNumber

    needs: ClassVar[tuple[str, str]] = (
        "kl",
        "loss=first_stage_kl needs a first stage with a Gaussian latent, as model=autoencoder_tiny",
    )

    def reconstruct(self, network: Any, x0: Tensor, draws: Draws) -> Reconstruction:
        moments = network.moments(x0)
        normal = draws.normal("latent", (network.z_channels, *moments.shape[2:])).to(moments.dtype)
        kl = network.kl(moments).flatten(1).sum(1)
        return Reconstruction(network.decode(network.draw(moments, normal)), self.kl_weight * kl, {"kl": kl})

    def distance(self, network: Any, error: Tensor) -> Tensor:
        s = network.log_scale
        return (error if s is None else error * (-s).exp() + s).flatten(1).sum(1)


@dataclass(frozen=True, eq=False, kw_only=True)
class FirstStageVQ(FirstStageLoss):
    """The mean of error + perceptual distance over an image + |z - sg(e)|^2 + codebook_weight * |sg(z) - e|^2.

    The squares are means over the latent. e: the nearest code, through which the gradient passes to z unchanged. The
    authors' code has the smaller weight at the codebook, unlike van den Oord et al. 2017 (eq. 3), who have it at the
    commitment of z. parts: "commitment", that square.
    """

    codebook_weight: check.NonNegativeNumber

    needs: ClassVar[tuple[str, str]] = (
        "codebook",
        "loss=first_stage_vq needs a first stage with a codebook, as model=autoencoder_vq_tiny",
    )

    def reconstruct(self, network: Any, x0: Tensor, draws: Draws) -> Reconstruction:
        z = network.moments(x0)
        code = network.entries(network.nearest(z))
        commitment = (z - code.detach()).square().flatten(1).mean(1)
        codebook = (z.detach() - code).square().flatten(1).mean(1)
        image = network.decoded(z + (code - z).detach())
        return Reconstruction(image, commitment + self.codebook_weight * codebook, {"commitment": commitment})

    def distance(self, network: Any, error: Tensor) -> Tensor:
        return error.flatten(1).mean(1)


def patch_mean(logits: Tensor) -> Tensor:
    """`[B]`, of the logits of the patches `[B, 1, h, w]`."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(1).mean(1)


def times(example: Example) -> Tensor:
    return torch.ones_like(example.draws.ids)
