"""Gaussian diffusion against the linear-Gaussian algebra of the paper, written out in numpy on its own table.

All maps are linear in the images, so feeding ones and zeros reads their coefficients off exactly, in float64.
"""

import numpy as np
import pytest
import torch

from ddpm.base.rng import Rng
from ddpm.diffusion.coefficients import per_sample
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.schedules.base import NoiseSchedule

T = 1000
BETA = np.linspace(1e-4, 0.02, T)  # beta_1 .. beta_T of Ho et al. 2020
ALPHA_BAR = np.r_[1, np.cumprod(1 - BETA)]
PAIRS = [(0, 1), (1, 2), (499, 500), (999, 1000), (0, 1000), (1, 1000), (0, 250), (250, 251), (100, 700), (333, 666)]

ONE, ZERO = torch.ones(1, 1, 2, 2, dtype=torch.float64), torch.zeros(1, 1, 2, 2, dtype=torch.float64)


def process_of(alpha_bar):
    return GaussianDiffusion(NoiseSchedule(torch.tensor(alpha_bar, dtype=torch.float64)))


@pytest.fixture(scope="module")
def process():
    return process_of(ALPHA_BAR)


def coefficient(image):
    assert image.dtype == torch.float64
    assert (image == image.flatten()[0]).all()
    return image.flatten()[0].item()


def posterior(process, s, t):
    """The mean's factors of x0 and x_t, and the variance."""
    of_x0, variance, _ = process.posterior(ONE, ZERO, s, t)
    of_x_t = process.posterior(ZERO, ONE, s, t).mean
    return coefficient(of_x0), coefficient(of_x_t), float(variance)


def images(num, dtype=torch.float64):
    return torch.randn(num, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def test_apply_is_equation_4(process):
    for t in (1, 2, 500, 1000):
        assert coefficient(process.apply(ONE, ZERO, t)) == pytest.approx(np.sqrt(ALPHA_BAR[t]), rel=1e-12)
        assert coefficient(process.apply(ZERO, ONE, t)) == pytest.approx(np.sqrt(1 - ALPHA_BAR[t]), rel=1e-9)


def test_a_single_step_back_is_equations_6_and_7(process):
    for t in (1, 2, 3, 10, 500, 999, 1000):
        alpha_bar, before, beta = ALPHA_BAR[t], ALPHA_BAR[t - 1], BETA[t - 1]
        expected = (
            np.sqrt(before) * beta / (1 - alpha_bar),
            np.sqrt(1 - beta) * (1 - before) / (1 - alpha_bar),
            (1 - before) / (1 - alpha_bar) * beta,
        )
        assert posterior(process, t - 1, t) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(("s", "t"), PAIRS)
def test_two_steps_forward_have_the_signal_and_the_variance_of_one(process, s, t):
    of_x0 = process.advance(process.apply(ONE, ZERO, s), s, t, ZERO)
    of_first = process.advance(process.apply(ZERO, ONE, s), s, t, ZERO)
    of_second = process.advance(ZERO, s, t, ONE)
    assert coefficient(of_x0) == pytest.approx(np.sqrt(ALPHA_BAR[t]), rel=1e-12)
    variance = coefficient(of_first) ** 2 + coefficient(of_second) ** 2
    assert variance == pytest.approx(1 - ALPHA_BAR[t], rel=1e-9)


@pytest.mark.parametrize(("s", "t"), PAIRS)
def test_forward_and_back_have_the_same_joint_distribution_by_bayes(process, s, t):
    """q(x_s | x0) q(x_t | x_s) = q(x_t | x0) q(x_s | x_t, x0): equal mean, variance and covariance of (x_s, x_t)."""
    of_x0, of_x_t, variance = posterior(process, s, t)
    alpha_s, alpha_t = np.sqrt(ALPHA_BAR[s]), np.sqrt(ALPHA_BAR[t])
    assert of_x0 + of_x_t * alpha_t == pytest.approx(alpha_s, rel=1e-12)
    assert of_x_t**2 * (1 - ALPHA_BAR[t]) + variance == pytest.approx(1 - ALPHA_BAR[s], rel=1e-9, abs=1e-15)
    step = coefficient(process.advance(ONE, s, t, ZERO))
    assert of_x_t * (1 - ALPHA_BAR[t]) == pytest.approx(step * (1 - ALPHA_BAR[s]), rel=1e-9, abs=1e-15)


def test_at_time_zero_nothing_is_noised(process):
    x0, z = images(2), images(2).flip(0)
    assert torch.equal(process.apply(x0, z, 0), x0)
    assert torch.equal(process.apply(x0, z, torch.zeros(2, dtype=torch.int64)), x0)


def test_the_posterior_at_time_zero_is_x0_without_variance(process):
    x0, x_t = images(3, torch.float32), images(3, torch.float32).flip(0)
    for t in (1, 17, 1000):
        mean, variance, _ = process.posterior(x0, x_t, 0, t)
        assert torch.equal(mean, x0)
        assert variance == 0
    mean, variance, _ = process.posterior(x0, x_t, torch.zeros(3, dtype=torch.int64), torch.tensor([1, 17, 1000]))
    assert torch.equal(mean, x0)
    assert (variance == 0).all()


def test_infer_inverts_apply(process):
    x0, z = images(4), images(4).flip(0)
    t = torch.tensor([1, 10, 500, 1000])
    assert torch.allclose(process.recover_noise(process.apply(x0, z, t), x0, t), z, rtol=0, atol=1e-12)
    assert torch.allclose(process.recover_noise(process.apply(x0, z, 7), x0, 7), z, rtol=0, atol=1e-12)


def test_int_times_and_times_of_a_batch_give_the_same_images(process):
    x, y = images(len(PAIRS)), images(len(PAIRS)).flip(0)
    s, t = (torch.tensor(times) for times in zip(*PAIRS, strict=True))
    mean, variance, _ = process.posterior(x, y, s, t)
    applied, inferred, advanced = process.apply(x, y, t), process.recover_noise(x, y, t), process.advance(x, s, t, y)
    for i, (s_i, t_i) in enumerate(PAIRS):
        one, other = x[i : i + 1], y[i : i + 1]
        mean_i, variance_i, _ = process.posterior(one, other, s_i, t_i)
        assert torch.allclose(mean[i : i + 1], mean_i, rtol=1e-12, atol=1e-12)
        assert variance[i].item() == pytest.approx(variance_i, rel=1e-12, abs=1e-300)
        assert torch.allclose(applied[i : i + 1], process.apply(one, other, t_i), rtol=1e-12, atol=1e-12)
        assert torch.allclose(inferred[i : i + 1], process.recover_noise(one, other, t_i), rtol=1e-12, atol=1e-11)
        assert torch.allclose(advanced[i : i + 1], process.advance(one, s_i, t_i, other), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_images_of_half_precision_are_noised_with_coefficients_of_full_precision(process, dtype):
    """Three roundings of the images' dtype are all that may be lost: of a coefficient, a product and the sum."""
    x0, z = images(1, dtype).clamp(-1, 1), images(1, dtype).flip(1)
    unit = torch.finfo(dtype).eps / 2
    for t in (1, 2, 3, 100, 999, 1000):
        exact = np.sqrt(ALPHA_BAR[t]) * x0.double(), np.sqrt(1 - ALPHA_BAR[t]) * z.double()
        bound = 3.1 * unit * (exact[0].abs() + exact[1].abs()) + 1e-7
        for time in (t, torch.tensor([t])):
            x_t = process.apply(x0, z, time)
            assert x_t.dtype == dtype
            assert ((x_t.double() - sum(exact)).abs() <= bound).all()


def test_half_precision_does_not_merge_neighbouring_times(process):
    """All of alpha_bar(1) .. alpha_bar(8) are one number in bfloat16, and the noise at those times is not."""
    t = torch.arange(1, 9)
    x_t = process.apply(torch.zeros(8, 1, 1, 1, dtype=torch.bfloat16), torch.ones(8, 1, 1, 1, dtype=torch.bfloat16), t)
    assert len(x_t.unique()) == 8
    assert len(torch.tensor(ALPHA_BAR[1:9]).bfloat16().unique()) == 1


def test_a_schedule_without_signal_at_its_end_gives_pure_noise_there_and_a_way_back():
    process = process_of(1 - np.arange(11) / 10)
    x0, z = images(2), images(2).flip(0)
    assert torch.equal(process.apply(x0, z, 10), z)
    of_x0, of_x_t, variance = posterior(process, 9, 10)
    expected = (np.sqrt(0.1), 0, 0.9)  # x_T says nothing: q(x_9 | x0)
    assert (of_x0, of_x_t, variance) == pytest.approx(expected, rel=1e-12)


def test_noise_and_prior_are_keyed_by_the_sample_and_differ(process):
    draws = Rng(0, "train").at(3, torch.tensor([4, 9]))
    z, prior = process.draw(torch.zeros(2, 3, 4, 4), draws), process.prior((3, 4, 4), draws)
    assert z.shape == prior.shape == (2, 3, 4, 4)
    alone = Rng(0, "train").at(3, torch.tensor([9]))
    assert torch.equal(process.draw(torch.zeros(1, 3, 4, 4), alone), z[1:])
    assert torch.equal(process.prior((3, 4, 4), alone), prior[1:])
    assert not torch.equal(z, prior)
    assert process.draw(torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16), draws).dtype == torch.bfloat16


def test_a_coefficient_multiplies_samples_or_pixels():
    x = images(2)
    assert per_sample(0.5, x) == 0.5
    assert torch.equal(per_sample(torch.tensor([2.0, 3.0]), x) * x, torch.stack([2 * x[0], 3 * x[1]]))
    assert torch.equal(per_sample(x, x) * x, x * x)
    assert torch.equal(per_sample(x[:1], x[:1]) * x[:1], x[:1] * x[:1])
