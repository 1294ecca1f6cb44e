"""The codec of latent diffusion, by itself: what it encodes, scales and decodes."""

import math

import pytest
import torch
from torch import nn

from ddpm.base.rng import Rng
from ddpm.diffusion.exact.affine import output_distribution
from ddpm.diffusion.exact.ode_likelihood import log_likelihood
from ddpm.diffusion.exact.oracle import GaussianOracle, OracleDenoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.noises.base import White
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.samplers.timestep_spacing import uniform
from ddpm.diffusion.schedules.curves import cosine
from ddpm.model.codec import PixelCodec
from ddpm.model.latent_codec import LatentCodec

D = 6


class Rotation(nn.Module):
    """A linear first stage with an orthogonal matrix and a constant spread of z."""

    z_channels, num_moments, factor = 1, 2, 1

    def __init__(self, spread=0.5):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        matrix, _ = torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64))
        self.matrix, self.spread = nn.Parameter(matrix), spread

    def moments(self, images):
        return images @ self.matrix.T

    def mean(self, moments):
        return moments

    def std(self, moments):
        return torch.full_like(moments, self.spread)

    def decode(self, z):
        return z @ self.matrix


def images(num=5):
    return Rng(0, "test").at(0, torch.arange(num)).normal("image", (1, 1, D)).double()


@pytest.mark.parametrize(
    "settings", [{"scale": 1.0}, {"scale": 0.18215}, {"shift": True, "fitted": {"scale": 3.0, "shift": [0.7]}}]
)
def test_decoding_the_mean_code_of_a_linear_first_stage_gives_the_image_back(settings):
    codec = LatentCodec(Rotation(), **settings)
    x = images()
    x0 = codec.encode({"image": x})
    shift = 0.7 if settings.get("shift") else 0.0
    assert torch.allclose(x0, (x @ codec.network.matrix.T - shift) * codec.scale, atol=1e-12)
    assert torch.allclose(codec.decode(x0), x, atol=1e-12)


def test_a_code_is_drawn_anew_at_each_visit_and_depends_on_no_other_image():
    codec, x = LatentCodec(Rotation(), scale=2.0), images()
    rng, ids = Rng(0, "train/codec"), torch.arange(5)
    first = codec.encode({"image": x}, rng.at(0, ids))
    assert torch.equal(codec.encode({"image": x[3:]}, rng.at(0, ids[3:])), first[3:])
    assert not torch.equal(codec.encode({"image": x}, rng.at(1, ids)), first)
    mean = codec.encode({"image": x})
    expected = rng.at(0, ids).normal("latent", (1, 1, D)) * 0.5 * 2.0
    assert torch.allclose(first - mean, expected.double(), atol=1e-12)


def test_without_sampling_the_code_is_its_mean():
    codec, x = LatentCodec(Rotation(), sample=False, scale=1.0), images()
    assert torch.equal(codec.encode({"image": x}, Rng(0, "train").at(0, torch.arange(5))), codec.encode({"image": x}))


def test_kept_moments_stand_for_the_image():
    codec, x = LatentCodec(Rotation(), scale=1.0), images()
    draws = Rng(0, "train").at(0, torch.arange(5))
    assert torch.equal(codec.encode({"latent": codec.moments(x)}, draws), codec.encode({"image": x}, draws))


def test_an_unknown_scale_is_refused():
    for codec in (LatentCodec(Rotation()), LatentCodec(Rotation(), scale=1.0, shift=True)):
        with pytest.raises(ValueError, match="the scale of the latents is not known yet"):
            codec.encode({"image": images()})
        with pytest.raises(ValueError, match="the scale of the latents is not known yet"):
            codec.decode(images())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": -1.0}, "scale must be"),
        ({"scale": "batch"}, "scale must be one of first_batch"),
        ({"shift": 1}, "shift must be"),
        ({"scale": "first_batch", "shift": True}, "shift must be false with scale=first_batch"),
        ({"sample": "no"}, "sample must be"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        LatentCodec(Rotation(), **settings)


def test_codecs_share_x0_if_first_stage_scale_and_shift_are_the_same():
    def codec(sha256="a", scale=2.0, shift=(0.5,)):
        known = {"first_stage_sha256": sha256, "shift": list(shift), **({"scale": scale} if scale else {})}
        return LatentCodec(Rotation(), shift=True, fitted=known)

    assert all(codec().shares_x0(other) for other in (codec(), codec(scale=2.0001), codec(scale=None)))
    assert not any(codec().shares_x0(other) for other in (codec("b"), codec(scale=3), codec(shift=[0.6]), PixelCodec()))
    assert PixelCodec().shares_x0(PixelCodec())
    assert not PixelCodec().shares_x0(codec())


def gaussian_data():
    """A mean and covariance of D numbers, and the same of their latents."""
    root = Rng(1, "test").at(0, torch.zeros(1, dtype=torch.int64)).normal("root", (D, D)).double()[0] / 2
    covariance, mean = (
        root @ root.T + torch.eye(D, dtype=torch.float64) / 10,
        torch.linspace(-1, 1, D, dtype=torch.float64),
    )
    return mean, (covariance + covariance.T) / 2


def oracle(mean, covariance):
    return GaussianOracle(mean.tolist(), ((covariance + covariance.T) / 2).tolist())


def test_diffusion_of_orthogonal_latents_is_diffusion_of_pixels():
    """DDIM maps the prior N(0, 1) affinely, and an orthogonal map leaves the prior as it is."""
    process, (mean, covariance), Q = (
        GaussianDiffusion(cosine(20, 0.008, 0.999), White()),
        gaussian_data(),
        Rotation().matrix.detach(),
    )
    sampler = DDIM(process, steps=10, timestep_spacing=uniform, eta=0.0)
    pixels = output_distribution(sampler, OracleDenoiser(oracle(mean, covariance), process.schedule), (1, 1, D))
    rotated = OracleDenoiser(oracle(Q @ mean, Q @ covariance @ Q.T), process.schedule)
    latents = output_distribution(sampler, rotated, (1, 1, D))
    codec = LatentCodec(Rotation(), scale=1.0)
    assert torch.allclose(codec.decode(latents.mean), pixels.mean, atol=1e-10)
    assert torch.allclose(Q.T @ latents.covariance @ Q, pixels.covariance, atol=1e-10)


def test_densities_of_latents_and_pixels_differ_by_the_log_determinant():
    """log p(x) = log p(x0) + D log(scale) for x0 = scale Q x."""
    process, (mean, covariance), scale = GaussianDiffusion(cosine(1000, 0.008, 0.999), White()), gaussian_data(), 1.7
    codec = LatentCodec(Rotation(), scale=scale)
    Q, x = codec.network.matrix.detach(), images()
    probes = torch.eye(D, dtype=torch.float64).view(D, 1, 1, 1, D).expand(D, 5, 1, 1, D) * math.sqrt(D)
    times = list(range(1, 1000, 3))
    denoiser = OracleDenoiser(oracle(scale * Q @ mean, scale**2 * Q @ covariance @ Q.T), process.schedule)
    latent = log_likelihood(process, denoiser, codec.encode({"image": x}), times, probes)
    exact = torch.distributions.MultivariateNormal(mean, covariance).log_prob(x.flatten(1))
    assert torch.allclose(latent + D * math.log(scale), exact, atol=0.05)
