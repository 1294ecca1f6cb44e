"""The bound of a variational autoencoder, whose encoder and decoder are known in closed form."""

import math

import pytest
import torch
from precision import assert_same
from torch import nn
from torch.distributions import Normal, kl_divergence

from ddpm.base.rng import Rng
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.losses.vae import VAELoss
from ddpm.diffusion.objective import X0
from ddpm.diffusion.schedules.curves import vp
from ddpm.diffusion.time_sampler import Uniform

PROCESS = GaussianDiffusion(vp(1, 0.1, 20, 1e-3))
DRAWS = Rng(0, "train").at(0, torch.arange(6))
MEAN, VARIANCE = 0.25, 0.5


class Known(nn.Module):
    """z of two numbers from N(1/4, 1/2), whatever the image, which is decoded as four times the first."""

    def encode(self, x0):
        return torch.full((len(x0), 2), MEAN), torch.full((len(x0), 2), math.log(VARIANCE))

    def decode(self, latent):
        return latent[:, :1, None, None].expand(-1, 1, 2, 2)


def test_the_loss_is_the_negative_bound_per_pixel():
    x0 = Rng(1, "data").at(0, torch.arange(6)).normal("x0", (1, 2, 2))
    terms = VAELoss(PROCESS, Uniform(), 0.5)(NetworkDenoiser(Known(), X0(PROCESS.schedule)), x0, {}, DRAWS)
    z = MEAN + VARIANCE**0.5 * DRAWS.normal("latent", (2,))
    likelihood = Normal(z[:, :1, None, None].expand_as(x0), 0.5).log_prob(x0).flatten(1).sum(1)
    constant = 4 * math.log(0.5 * math.sqrt(2 * math.pi))
    kl = kl_divergence(Normal(MEAN, VARIANCE**0.5), Normal(0.0, 1.0)).sum() * 2
    assert_same(terms.total.double(), ((-likelihood - constant + kl) / 4).double(), 1e-6)
    assert_same(terms.parts["kl"].double(), kl.expand(6).double(), 1e-6)


def test_what_cannot_be_is_one_error():
    with pytest.raises(ValueError, match=r"schedule\.num_timesteps must be 1 with loss=vae"):
        VAELoss(GaussianDiffusion(vp(4, 0.1, 20, 1e-3)), Uniform(), 0.5)
    network = NetworkDenoiser(nn.Identity(), X0(PROCESS.schedule))
    with pytest.raises(ValueError, match="model must be an autoencoder with loss=vae, as model=vae_tiny"):
        VAELoss(PROCESS, Uniform(), 0.5)(network, torch.zeros(6, 1, 2, 2), {}, DRAWS)
