"""The game over pairs of neighbouring times, against closed forms: the process, both losses, the penalty."""

import math

import numpy as np
import pytest
import torch
from precision import assert_same
from torch import nn

from ddpm.base.rng import Rng
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.losses import Example
from ddpm.diffusion.losses.ddgan import DDGANLoss
from ddpm.diffusion.objective import X0
from ddpm.diffusion.samplers.ancestral import Ancestral
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.samplers.step_inputs import Latents
from ddpm.diffusion.samplers.timestep_spacing import uniform
from ddpm.diffusion.schedules.curves import vp
from ddpm.diffusion.time_sampler import Uniform
from ddpm.diffusion.variance import FixedSmall

IDS = torch.arange(20_000)
DRAWS = Rng(3, "train").at(0, IDS)


def process(T):
    return GaussianDiffusion(vp(T, 0.1, 20, 1e-3))


class Shift(nn.Module):
    """A generator whose x0 is its one weight plus a standard normal latent: N(weight, 1) in each pixel."""

    latent_channels = 1

    def __init__(self, shift):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift, dtype=torch.float64))

    def forward(self, x, time, latent):
        return self.shift + latent.double()[:, :, None, None].expand(x.shape)


class LogRatio(nn.Module):
    """log N(x; real, 1) / N(x; fake, 1), the optimal adversary of two Gaussians. It does not look at x_t."""

    def __init__(self, real, fake):
        super().__init__()
        self.real, self.fake = real, fake

    def forward(self, x_s, time, x_t):
        return ((self.real - self.fake) * x_s.flatten(1) - (self.real**2 - self.fake**2) / 2).sum(1)


class Linear(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x_s, time, x_t):
        self.times = time
        return (x_s * self.weight).flatten(1).sum(1) + 3 * x_t.flatten(1).sum(1)


def loss_of(adversary, T, r1_gamma=0.0, r1_every=1, r1_scale_by_interval=False, reconstruction_weight=0.0):
    penalty = r1_gamma, r1_every, r1_scale_by_interval
    return DDGANLoss(process(T), Uniform(), adversary, *penalty, reconstruction_weight)


def denoiser(shift):
    return NetworkDenoiser(Shift(shift), X0(process(4).schedule))


def example(x0, step=0, draws=DRAWS):
    return Example(x0, {}, draws, step)


def test_the_tables_of_four_steps_are_those_of_the_published_program():
    schedule = process(4).schedule
    betas = [float(schedule.beta(t - 1, t)) for t in range(1, 5)]
    variances = [float(schedule.posterior_variance(t - 1, t)) for t in range(1, 5)]
    np.testing.assert_allclose(betas, [0.478255, 0.849206, 0.956418, 0.987404], atol=5e-7)
    np.testing.assert_allclose(variances, [0, 0.440819, 0.884202, 0.984061], atol=5e-7)


@pytest.mark.parametrize("T", [1, 2, 8])
def test_any_number_of_steps_ends_at_the_same_noise(T):
    """alpha_bar(1) / alpha_bar(0.001) of the SDE, so that one step is in effect a GAN without a condition."""
    log_alpha_bar = [-(t**2) * 19.9 / 2 - 0.1 * t for t in (1.0, 1e-3)]
    assert float(process(T).schedule.alpha(T)) ** 2 == pytest.approx(math.exp(log_alpha_bar[0] - log_alpha_bar[1]))


def test_with_an_optimal_adversary_equal_distributions_cost_ln_2_and_have_no_gradient():
    given = denoiser(0.7)
    total = loss_of(LogRatio(0.7, 0.7), 1).network_terms(given, example(torch.zeros(20_000, 1, 1, 1).double())).total
    assert_same(total, torch.full_like(total, math.log(2)))
    total.mean().backward()
    assert given.network.shift.grad == 0


def test_with_an_optimal_adversary_loss_and_gradient_are_those_of_two_gaussians():
    """The fake x is N(0.2, 1) and D(x) = x (1 - 0.2) - (1 - 0.04) / 2; the integral over x is taken by quadrature."""
    real, fake = 1.0, 0.2
    given = denoiser(fake)
    total = loss_of(LogRatio(real, fake), 1).network_terms(given, example(torch.zeros(20_000, 1, 1, 1).double())).total
    total.mean().backward()
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    logit = (real - fake) * (fake + nodes) - (real**2 - fake**2) / 2
    weights = weights / weights.sum()
    loss, gradient = weights @ np.log1p(np.exp(-logit)), -weights @ ((real - fake) / (1 + np.exp(logit)))
    spread = 5 / math.sqrt(20_000)  # five standard errors of numbers whose own deviation is below 1
    assert total.mean().item() == pytest.approx(loss, abs=spread)
    assert given.network.shift.grad.item() == pytest.approx(gradient, abs=spread)


def test_the_reconstruction_term_is_the_weighted_error_of_the_posteriors_mean():
    """x0 of the generator is N(0.7, 1) and the images are 0, so its mean error is that of a folded normal distribution.
    The adversary is blind and costs ln 2, so all of the gradient is that of the term. The mean of the posterior has x0
    with the coefficient sqrt(alpha_bar_s) beta_t / (1 - alpha_bar_t) (Ho et al. 2020, eq. 7)."""
    given = denoiser(0.7)
    terms = loss_of(LogRatio(0.7, 0.7), 4, reconstruction_weight=3.0).network_terms(
        given, example(torch.zeros(20_000, 1, 1, 1).double())
    )
    assert_same(terms.total, math.log(2) + 3 * terms.parts["error"])
    positive = 0.5 * math.erf(0.7 / math.sqrt(2)) + 0.5
    folded = math.sqrt(2 / math.pi) * math.exp(-(0.7**2) / 2) + 0.7 * (2 * positive - 1)
    betas = np.array([0.478255, 0.849206, 0.956418, 0.987404])
    alpha_bar = np.cumprod(1 - betas)
    of_x0 = np.sqrt(np.array([1, *alpha_bar[:3]])) * betas / (1 - alpha_bar)
    for t in range(1, 5):
        error = terms.parts["error"][terms.t == t]
        assert error.mean().item() == pytest.approx(of_x0[t - 1] * folded, rel=5 / math.sqrt(len(error)))
    terms.total.mean().backward()
    gradient = 3 * of_x0.mean() * (2 * positive - 1)
    assert given.network.shift.grad.item() == pytest.approx(gradient, rel=0.05)


def test_the_adversary_sees_the_loss_of_an_optimal_classifier():
    """At equal distributions it is 2 ln 2, whatever the pair."""
    x0 = Rng(0, "data").at(0, IDS).normal("x0", (1, 1, 1)).double() + 0.7
    terms = loss_of(LogRatio(0.7, 0.7), 4).adversary_terms(denoiser(0.7), example(x0))
    assert_same(terms.total, torch.full_like(terms.total, 2 * math.log(2)))
    assert terms.parts["r1"].isnan().all()


def test_the_penalty_of_a_linear_adversary_is_half_gamma_times_its_squared_weight():
    """Of x_s alone, though the adversary depends on x_t too; in the steps that the interval divides."""
    weight = torch.tensor([[[1.0, -2.0], [0.5, 4.0]]], dtype=torch.float64)
    x0, draws = torch.zeros(5, 1, 2, 2).double(), Rng(0, "train").at(0, torch.arange(5))
    squared = 1 + 4 + 0.25 + 16
    for scales, factor in ((False, 1), (True, 3)):
        loss = loss_of(Linear(weight), 4, r1_gamma=0.1, r1_every=3, r1_scale_by_interval=scales)
        due, later = (loss.adversary_terms(denoiser(0.0), example(x0, step, draws)) for step in (6, 7))
        assert_same(due.parts["r1"], torch.full((5,), factor * 0.05 * squared).double())
        assert later.parts["r1"].isnan().all()
        assert_same(due.total - due.parts["r1"], later.total)


def test_the_gradient_of_the_penalty_reaches_the_adversary():
    weight = torch.tensor([[[1.0, -2.0], [0.5, 4.0]]], dtype=torch.float64)
    adversary, x0 = Linear(weight), torch.zeros(5, 1, 2, 2).double()
    loss, draws = loss_of(adversary, 4, r1_gamma=0.1), Rng(0, "train").at(0, torch.arange(5))
    loss.adversary_terms(denoiser(0.0), example(x0, 0, draws)).parts["r1"].mean().backward()
    assert_same(adversary.weight.grad, 0.1 * weight)  # of gamma / 2 |w|^2


def test_under_autocast_the_adversary_and_the_penalty_are_those_of_float32():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 1)

        def forward(self, x_s, time, x_t):
            return self.layer(torch.cat([x_s, x_t], dim=1).flatten(1).float())[:, 0].square()

    x0, draws = torch.ones(5, 1, 2, 2), Rng(0, "train").at(0, torch.arange(5))
    loss = loss_of(Layer(), 4, r1_gamma=0.1)
    exact = loss.adversary_terms(denoiser(0.0), example(x0, 0, draws))
    with torch.autocast("cpu", torch.bfloat16):
        terms = loss.adversary_terms(denoiser(0.0), example(x0, 0, draws))
    assert torch.equal(terms.total, exact.total)
    assert torch.equal(terms.parts["r1"], exact.parts["r1"])


def test_a_pair_is_x0_itself_at_the_first_time_and_the_fake_is_the_generators_x0():
    x0 = Rng(0, "data").at(0, IDS).normal("x0", (1, 2, 2)).double()
    loss, given = loss_of(Linear(torch.zeros(1, 2, 2)), 4), denoiser(0.3)
    t, x_s, x_t = loss.real_pair(example(x0))
    fake = loss.fake(given, example(x0), x_t, t).sample(DRAWS, "fake")
    first = t == 1
    assert torch.equal(x_s[first], x0[first])
    assert_same(fake[first], 0.3 + DRAWS.normal("latent", (1,)).double()[first, :, None, None].expand_as(x0[first]))
    schedule = loss.process.schedule
    for time in range(1, 5):  # x_s and x_t have the joint moments of the forward process
        signal = float(schedule.alpha(time) / schedule.alpha(time - 1))
        z = (x_t - signal * x_s)[t == time] / float(schedule.beta(time - 1, time)) ** 0.5
        assert z.mean().abs() < 0.05
        assert abs(z.var() - 1) < 0.05


def test_networks_see_times_from_zero():
    adversary, x0 = Linear(torch.zeros(1, 2, 2)), torch.zeros(50, 1, 2, 2)
    draws = Rng(0, "train").at(0, torch.arange(50))
    terms = loss_of(adversary, 4).network_terms(denoiser(0.0), example(x0, 0, draws))
    assert torch.equal(adversary.times, terms.t - 1)
    assert adversary.times.unique().tolist() == [0, 1, 2, 3]


def test_a_process_without_noise_is_refused():
    with pytest.raises(ValueError, match="loss=ddgan needs process=gaussian"):
        DDGANLoss(None, Uniform(), nn.Identity(), 0.0, 1, False, 0.0)


def sampler(latent="fresh"):
    return Ancestral(process(4), uniform, None, FixedSmall(), latent).with_latents(1)


def test_a_sample_is_the_same_in_any_batch_and_its_latents_differ_from_step_to_step():
    rng, seen = Rng(0, "sample"), []

    def watched(x_t, t, cond):
        seen.append(cond["latent"])
        return denoiser(0.0)(x_t, t, cond)

    many = sampler().sample(watched, (1, 2, 2), rng, torch.arange(20))
    few = sampler().sample(denoiser(0.0), (1, 2, 2), rng, torch.tensor([17, 3]))
    assert torch.equal(many[[17, 3]], few)
    assert len(seen) == 4
    assert len(torch.stack(seen).unique()) == 80
    seen.clear()
    sampler("fixed").sample(watched, (1, 2, 2), rng, torch.arange(20))
    assert all(torch.equal(latent, seen[0]) for latent in seen)


def test_the_latent_is_named_where_images_depend_on_it():
    assert "latent" not in sampler().describe()
    assert "latent='fixed'" in sampler("fixed").describe()
    assert Latents(1) != Latents(1, fixed=True)


def test_a_sampler_that_needs_the_mean_says_so():
    with pytest.raises(
        ValueError, match=r"models a distribution of x0, and the sampler DDIM needs its mean: .*ancestral"
    ):
        DDIM(process(4), uniform, None, 0.0).with_latents(1)
