"""The learned gamma(t): monotone whatever its weights, with its ends as parameters, and the bound that they decide."""

import math
import re

import pytest
import torch
from precision import assert_same, roundings

from ddpm.base.rng import Rng
from ddpm.diffusion.schedules.learned import LearnedSchedule

END = roundings(1, scale=18.3 * math.log(18.3))
"""How well the end of gamma is known: the logarithm of its distance from the start, 18.3, is a float32 parameter."""


def learned(seed=None, start=-13.3, end=5.0, num_features=32):
    """seed: of numbers to shake all weights by, that are not the ends."""
    made = LearnedSchedule(start, end, num_features).double()
    if seed is not None:
        draws = Rng(seed, "test").at(0, torch.zeros(1, dtype=torch.int64))
        with torch.no_grad():
            for name in ("raw_steepness", "raw_weight", "bias"):
                weight = getattr(made, name)
                weight += 3 * draws.normal(name, weight.shape)[0]
    return made


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_gamma_rises_from_one_end_to_the_other_whatever_the_weights(seed):
    gamma = learned(seed)(torch.linspace(0, 1, 1001, dtype=torch.float64))
    assert gamma[0].item() == pytest.approx(-13.3, rel=roundings(1))
    assert gamma[-1].item() == pytest.approx(5.0, abs=END)
    assert bool((gamma.diff() > 0).all())


def test_gamma_starts_out_as_a_straight_line_and_can_be_bent():
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    line = -13.3 + 18.3 * t
    assert (learned()(t) - line).abs().max() < 0.01 * 18.3
    bent = learned()
    with torch.no_grad():  # one steep step in the middle, a hundred times as high as the line
        bent.raw_steepness.fill_(100)
        bent.bias.fill_(-50)
        bent.raw_weight.fill_(100 / 32)
    assert (bent(t) - line).abs().max() > 0.4 * 18.3


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_the_slope_is_the_derivative_of_gamma(seed):
    made = learned(seed)
    t = torch.linspace(0, 1, 101, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(made(t).sum(), t)
    torch.testing.assert_close(made.slope(t), expected, rtol=1e-9, atol=1e-12)
    assert bool((made.slope(t) > 0).all())


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_the_bound_of_gaussian_data_depends_on_the_ends_alone(seed):
    """For x0 ~ N(0, v) the best denoiser errs by E|eps - eps_hat|^2 = v SNR / (1 + v SNR), and with SNR = exp(-gamma)
    the integral of half of it over gamma is log((1 + v SNR(0)) / (1 + v SNR(1))) / 2. Midpoint rule of 20,000 times."""
    v, made = 0.25, learned(seed, start=-4.0, end=3.0)
    t = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    snr = (-made(t)).exp()
    eps = (v * snr / (1 + v * snr)).sqrt().view(-1, 1, 1, 1)
    found = made.diffusion_loss(t, eps, torch.zeros_like(eps)).mean().item()
    assert found == pytest.approx(math.log((1 + v * math.exp(4)) / (1 + v * math.exp(-3))) / 2, rel=1e-5)


def test_the_losses_are_summed_over_pixels_one_a_sample():
    made = learned()
    t, eps = torch.tensor([0.2, 0.7], dtype=torch.float64), torch.ones(2, 3, 4, 4, dtype=torch.float64)
    assert_same(made.diffusion_loss(t, eps, -eps), made.slope(t) * 4 * 48 / 2)
    assert made.prior_loss(eps).shape == (2,)


def test_the_prior_is_the_divergence_of_two_gaussians():
    """torch's own KL(N(alpha x0, sigma^2) || N(0, 1)) at the end, where alpha^2 = 1 / (1 + e^gamma)."""
    made, x0 = learned(end=1.0), torch.tensor([[[[0.5, -1.0]]]], dtype=torch.float64)
    alpha_bar = 1 / (1 + math.e)
    ours = torch.distributions.Normal(alpha_bar**0.5 * x0, (1 - alpha_bar) ** 0.5)
    expected = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0, 1)).sum()
    assert made.prior_loss(x0).item() == pytest.approx(expected.item(), abs=END)


def test_every_weight_is_trained_and_the_ends_too():
    made = learned(seed=0)
    t = torch.tensor([0.1, 0.4, 0.8], dtype=torch.float64)
    made(t).square().sum().backward()
    assert all(bool((weight.grad != 0).all()) for weight in made.parameters())


def test_what_was_learned_is_a_table_for_every_sampler():
    schedule = LearnedSchedule(-13.3, 5.0, 1024).table(100)
    assert schedule.T == 100
    assert schedule.snr(1) == pytest.approx(math.exp(13.3), rel=roundings(1, scale=13.3))
    assert schedule.snr(100) == pytest.approx(math.exp(-5), rel=END)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((5.0, -13.3, 8), "gamma_end must be greater than gamma_start (5.0), got -13.3"),
        ((-13.3, 5.0, 0), "num_features must be a positive integer, got 0"),
    ],
)
def test_what_cannot_be_learned_is_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        LearnedSchedule(*settings)
