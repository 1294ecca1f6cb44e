"""The loss of denoising diffusion GANs (Xiao, Kreis and Vahdat 2022, eqs. 3-6)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.base import check
from ddpm.base.types import LossTerms
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.gaussian import Gaussian, GaussianDiffusion
from ddpm.diffusion.losses import Example, TurnLoss
from ddpm.diffusion.samplers.step_inputs import Latents
from ddpm.diffusion.time_sampler import TimeSampler


@dataclass(frozen=True, eq=False)
class DDGANLoss:
    """The non-saturating logistic GAN loss of network and adversary, for pairs (x_s, x_t) of neighbouring times.

    A real pair is drawn from q(x_s | x0) and q(x_t | x_s), s = t - 1. In a fake pair, x_s is drawn from the posterior
    at the x0 that the network computes from x_t and a latent. The adversary returns logits `[B]` for
    `adversary(x_s, time, x_t, **cond)`, and computes in float32 or higher in every trainer precision.

    r1_gamma: weight of the penalty gamma / 2 |grad D(x_s)|^2 at real pairs (Mescheder et al. 2018); 0: none. The
    penalty is added in every `r1_every`-th step. r1_scale_by_interval: multiply it by r1_every, as StyleGAN2 does
    (Karras et al. 2020), so that its mean over steps does not depend on r1_every; the published DDGANs do not.
    reconstruction_weight: of a mean absolute error that the network's turn adds; 0 in the published DDGANs. Phung, Dao
    and Tran 2023 ("Wavelet Diffusion Models are fast and scalable Image Generators") take that of x0. Here it is that
    of the posterior's mean at this x0, so it is small where x_s depends little on x0 and where x0 cannot be known.
    """

    process: GaussianDiffusion
    time_sampler: TimeSampler
    adversary: nn.Module
    r1_gamma: check.NonNegativeNumber
    r1_every: check.PositiveInt
    r1_scale_by_interval: bool
    reconstruction_weight: check.NonNegativeNumber

    needs: ClassVar[tuple[str, str]] = (
        "latent_channels",
        "loss=ddgan needs a generator with a latent, as model=ddgan_tiny",
    )

    def __post_init__(self) -> None:
        if not isinstance(self.process, GaussianDiffusion):
            raise ValueError(f"loss=ddgan needs process=gaussian, not {type(self.process).__name__}")
        check.fields(self)

    @property
    def turns(self) -> Mapping[str, TurnLoss]:
        """The adversary's turn is first, so the network is trained against the updated adversary."""
        return {"adversary": self.adversary_terms, "network": self.network_terms}

    @property
    def double_backward(self) -> bool:
        """Whether the adversary is differentiated twice, which compiled code does not support."""
        return self.r1_gamma > 0

    def adversary_terms(self, denoiser: NetworkDenoiser, example: Example) -> LossTerms:
        """softplus(-D) of real pairs + softplus(D) of fake ones + R1.

        parts: the logits, and "r1", which is NaN in steps without the penalty.
        """
        t, x_s, x_t = self.real_pair(example)
        with torch.no_grad():
            fake = self.fake(denoiser, example, x_t, t).sample(example.draws, "fake")
        is_due = self.r1_gamma > 0 and example.step % self.r1_every == 0
        with torch.autocast(x_t.device.type, enabled=False):
            x_s.requires_grad_(is_due)
            real_logit = self.logit(x_s, t, x_t, example)
            fake_logit = self.logit(fake, t, x_t, example)
            total = F.softplus(-real_logit) + F.softplus(fake_logit)
            r1 = torch.full_like(total, torch.nan)
            if is_due:
                r1 = self.r1(real_logit, x_s)
                total = total + r1
        return self.terms(total, t, {"logit_real": real_logit, "logit_fake": fake_logit, "r1": r1})

    def network_terms(self, denoiser: NetworkDenoiser, example: Example) -> LossTerms:
        """softplus(-D) of fake pairs, differentiated through the adversary, + the weighted error of their mean.

        parts: "logit", and "error", without its weight.
        """
        t, _, x_t = self.real_pair(example)
        fake = self.fake(denoiser, example, x_t, t)
        with torch.autocast(x_t.device.type, enabled=False):
            logit = self.logit(fake.sample(example.draws, "fake"), t, x_t, example)
            real_mean = self.process.posterior(example.x0, x_t, t - 1, t).mean
            error = (fake.mean - real_mean).abs().flatten(1).mean(1)
            total = F.softplus(-logit) + self.reconstruction_weight * error
            return self.terms(total, t, {"logit": logit, "error": error})

    def real_pair(self, example: Example) -> tuple[Tensor, Tensor, Tensor]:
        """t, x_s and x_t."""
        x0, draws, process = example.x0, example.draws, self.process
        t = self.time_sampler(draws, process.T)
        x_s = process.apply(x0, process.draw(x0, draws), t - 1)
        z = process.noise(draws, "advance", tuple(x0.shape[1:])).to(x0.dtype)
        return t, x_s, process.advance(x_s, t - 1, t, z)

    def fake(self, denoiser: NetworkDenoiser, example: Example, x_t: Tensor, t: Tensor) -> Gaussian:
        """The posterior of x_s at the network's x0; at s = 0, this x0 itself."""
        network: Any = denoiser.network
        latent = Latents(network.latent_channels)(None, example.draws)
        x0 = denoiser(x_t, t, {**example.cond, **latent}).x0
        return self.process.posterior(x0, x_t, t - 1, t)

    def logit(self, x_s: Tensor, t: Tensor, x_t: Tensor, example: Example) -> Tensor:
        dtype = torch.promote_types(x_s.dtype, torch.float32)
        return self.adversary(x_s.to(dtype), t - 1, x_t.to(dtype), **example.cond)

    def r1(self, logit: Tensor, x_s: Tensor) -> Tensor:
        """The R1 penalty `[B]`, with the gradient with respect to all pixels and channels of x_s."""
        (gradient,) = torch.autograd.grad(logit.sum(), x_s, create_graph=True)
        interval = self.r1_every if self.r1_scale_by_interval else 1
        return interval * self.r1_gamma / 2 * gradient.square().flatten(1).sum(1)

    def terms(self, total: Tensor, t: Tensor, parts: Mapping[str, Tensor]) -> LossTerms:
        return LossTerms(total, t, parts, self.time_sampler.importance(t, self.process.T))
