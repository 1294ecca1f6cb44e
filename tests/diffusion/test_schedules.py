"""Every named schedule against its published definition, written out again in numpy, and against other programs."""

import functools
import itertools
import math
import re

import diffusers
import numpy as np
import pytest
import torch
from denoising_diffusion_pytorch import denoising_diffusion_pytorch as lucidrains
from diffusers.schedulers import scheduling_ddim, scheduling_ddpm
from precision import InDouble, roundings

from ddpm.diffusion.schedules.adjusted import shifted, zero_terminal_snr
from ddpm.diffusion.schedules.betas import constant, dpm2015, linear, quadratic, sigmoid_beta, warmup
from ddpm.diffusion.schedules.curves import cosine, jsd, sigmoid, vp

NICHOL = {"offset": 0.008, "max_beta": 0.999}
JABRI = {"start": -3, "end": 3, "temperature": 1, "max_beta": 0.999}
HO = {"beta_start": 1e-4, "beta_end": 0.02}
SONG = {"beta_min": 0.1, "beta_max": 20, "t_min": 1e-3}
SOHL_DICKSTEIN = {"min_beta": 1e-6, "step1_beta": 1e-3}

ANY_LENGTH = {
    "constant": functools.partial(constant, beta=0.01, rescale=False),
    "cosine": functools.partial(cosine, **NICHOL),
    "dpm2015": functools.partial(dpm2015, **SOHL_DICKSTEIN),
    "jsd": jsd,
    "linear": functools.partial(linear, **HO, rescale=False),
    "quadratic": functools.partial(quadratic, **HO, rescale=False),
    "shifted": lambda T: shifted(T, 64, 256, of=cosine(T, **NICHOL)),
    "sigmoid": functools.partial(sigmoid, **JABRI),
    "sigmoid_beta": functools.partial(sigmoid_beta, **HO, rescale=False),
    "vp": functools.partial(vp, **SONG),
    "warmup": functools.partial(warmup, **HO, fraction=0.1, rescale=False),
}
RESCALED = {
    "constant": functools.partial(constant, beta=0.01, rescale=True),
    "linear": functools.partial(linear, **HO, rescale=True),
    "quadratic": functools.partial(quadratic, **HO, rescale=True),
    "sigmoid_beta": functools.partial(sigmoid_beta, **HO, rescale=True),
    "warmup": functools.partial(warmup, **HO, fraction=0.1, rescale=True),
}


def betas(schedule):
    table = schedule.alpha_bar.numpy()
    return 1 - table[1:] / table[:-1]


def equals_ho(schedule, expected):
    """Ho's code: alphas_cumprod = np.cumprod(1 - betas), in float64."""
    np.testing.assert_allclose(schedule.alpha_bar.numpy(), np.r_[1, np.cumprod(1 - expected)], rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("num_timesteps", [1, 2, 10, 100, 1000, 4000])
def test_the_schedules_of_ho_are_the_ones_of_his_code(num_timesteps):
    T, start, end = num_timesteps, 1e-4, 0.02
    equals_ho(linear(T, start, end, rescale=False), np.linspace(start, end, T))
    equals_ho(quadratic(T, start, end, rescale=False), np.linspace(start**0.5, end**0.5, T) ** 2)
    equals_ho(constant(T, end, rescale=False), end * np.ones(T))
    equals_ho(jsd(T), 1 / np.linspace(T, 1, T))
    for fraction in (0.1, 0.5):
        rise = int(T * fraction)
        warming = np.concatenate([np.linspace(start, end, rise), end * np.ones(T - rise)])
        equals_ho(warmup(T, start, end, fraction, rescale=False), warming)


def test_the_linear_schedule_has_the_published_end():
    schedule = linear(1000, **HO, rescale=True)
    assert schedule.alpha_bar[-1].item() == pytest.approx(4.0358e-5, rel=1e-4)
    assert schedule.alpha_bar[1].item() == pytest.approx(0.9999, rel=1e-12)


@pytest.mark.parametrize(
    ("num_timesteps", "rescale", "bits"), [(1000, True, 2.9e-5), (100, False, 0.326)], ids=["Ho", "100 not rescaled"]
)
def test_the_prior_is_as_far_from_the_end_of_the_chain_as_published(num_timesteps, rescale, bits):
    """KL(q(x_T | x0) || N(0, 1)) in bits at x0 = 1: Ho et al. 2020, section 4, state about 1e-5 for images."""
    a = linear(num_timesteps, **HO, rescale=rescale).alpha_bar[-1].item()
    assert -0.5 * math.log1p(-a) / math.log(2) == pytest.approx(bits, rel=0.01)


@pytest.mark.parametrize(
    ("beta_start", "beta_end", "share", "bits"),
    [
        (0.0015, 0.0195, 1.423e-4, 1.03e-4),  # CelebA-HQ, FFHQ, bedrooms, ImageNet
        (0.0015, 0.0155, 6.687e-4, 4.83e-4),  # churches, super-resolution
        (0.0015, 0.0205, 9.691e-5, 6.99e-5),  # inpainting, layouts, semantic maps
        (0.00085, 0.012, 4.660e-3, 3.37e-3),  # text to images
    ],
)
def test_the_schedules_of_latent_diffusion_leave_their_share_of_signal(beta_start, beta_end, share, bits):
    """alpha_bar(T), and KL(q(x_T | x0) || N(0, 1)) in bits per dimension for data with mean square 1."""
    expected = np.linspace(beta_start**0.5, beta_end**0.5, 1000) ** 2
    schedule = quadratic(1000, beta_start, beta_end, rescale=True)
    equals_ho(schedule, expected)
    left = schedule.alpha_bar[-1].item()
    assert left == pytest.approx(share, rel=5e-4)
    assert -0.5 * math.log1p(-left) / math.log(2) == pytest.approx(bits, rel=5e-3)


def test_the_cosine_schedule_is_equation_17_with_its_last_beta_alone_clipped():
    for T in (1, 2, 3, 10, 100, 1000, 4000):
        angle = (np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2
        expected = np.cos(angle) ** 2 / np.cos(angle[0]) ** 2
        assert (1 - expected[1:] / expected[:-1] > 0.999).tolist() == [False] * (T - 1) + [True]
        table = cosine(T, **NICHOL).alpha_bar.numpy()
        np.testing.assert_allclose(table[:-1], expected[:-1], rtol=1e-10)
        assert table[-1] == pytest.approx(table[-2] * 0.001, rel=1e-10)


def test_the_cosine_schedule_without_an_offset_halves_the_signal_half_way():
    assert cosine(1000, offset=0, max_beta=0.999).alpha_bar[500].item() == pytest.approx(0.5, rel=1e-12)


def test_the_sigmoid_schedule_is_symmetric_about_its_middle():
    table = sigmoid(1000, **(JABRI | {"max_beta": 1})).alpha_bar
    np.testing.assert_allclose((table + table.flip(0)).numpy(), np.ones(1001), atol=1e-12)


def test_a_very_hot_sigmoid_is_the_straight_line():
    table = sigmoid(100, start=-3, end=3, temperature=1e4, max_beta=1).alpha_bar.numpy()
    np.testing.assert_allclose(table, 1 - np.arange(101) / 100, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("linear", linear(1000, **HO, rescale=True)),
        ("scaled_linear", quadratic(1000, **HO, rescale=True)),
        ("squaredcos_cap_v2", cosine(1000, **NICHOL)),
        ("sigmoid", sigmoid_beta(1000, **HO, rescale=True)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_betas_equal_those_of_diffusers(name, schedule, monkeypatch):
    monkeypatch.setattr(scheduling_ddpm, "torch", InDouble())
    theirs = diffusers.DDPMScheduler(1000, beta_schedule=name, beta_start=1e-4, beta_end=0.02).betas
    line = roundings(6) if name == "sigmoid" else 1e-9  # theirs from -6 to 6 is float32
    np.testing.assert_allclose(betas(schedule), theirs.numpy(), rtol=line)


@pytest.mark.parametrize("num_timesteps", [2, 10, 100, 1000])
@pytest.mark.parametrize("name", [name for name in ANY_LENGTH if name != "jsd"])
def test_zero_terminal_snr_is_algorithm_1_as_diffusers_has_it(name, num_timesteps):
    of = ANY_LENGTH[name](num_timesteps)
    theirs = scheduling_ddim.rescale_zero_terminal_snr(torch.tensor(betas(of)))
    schedule = zero_terminal_snr(num_timesteps, of)
    line = roundings(6) if name == "sigmoid" else 1e-9  # theirs from -6 to 6 is float32
    np.testing.assert_allclose(betas(schedule), theirs.numpy(), rtol=line)
    assert schedule.alpha_bar[-1] == 0
    assert schedule.alpha_bar[1].item() == pytest.approx(of.alpha_bar[1].item(), rel=1e-14)


def test_zero_terminal_snr_leaves_what_ends_at_zero_as_it_is():
    np.testing.assert_allclose(zero_terminal_snr(50, jsd(50)).alpha_bar.numpy(), jsd(50).alpha_bar.numpy(), rtol=1e-14)


@pytest.mark.parametrize(("base", "size"), [(64, 256), (32, 32), (64, 28)])
def test_a_shift_adds_twice_the_logarithm_of_the_sizes_to_the_log_snr(base, size):
    """Hoogeboom et al. 2023, section 3.1."""
    of = cosine(1000, **NICHOL)
    schedule = shifted(1000, base, size, of=of)
    shifts = [math.log(schedule.snr(t) / of.snr(t)) for t in range(1, 1001)]
    np.testing.assert_allclose(shifts, np.full(1000, 2 * math.log(base / size)), atol=1e-8)


def test_a_shifted_schedule_is_as_noisy_as_the_other_once_its_pixels_are_averaged():
    """The mean of k x k pixels of a constant image keeps the signal and has 1 / k^2 of the noise's variance."""
    k, of = 4, linear(100, **HO, rescale=True)
    schedule = shifted(100, 64, 64 * k, of=of)
    for t in (1, 30, 100):
        noise_of_mean = (1 - schedule.alpha_bar[t]) / k**2
        assert (schedule.alpha_bar[t] / noise_of_mean).item() == pytest.approx(of.snr(t), rel=1e-9)


def test_two_shifts_are_one_and_a_shift_keeps_an_end_without_signal():
    of = zero_terminal_snr(100, linear(100, **HO, rescale=True))
    twice = shifted(100, 128, 256, of=shifted(100, 64, 128, of=of))
    np.testing.assert_allclose(twice.alpha_bar.numpy(), shifted(100, 64, 256, of=of).alpha_bar.numpy(), rtol=1e-12)
    assert twice.alpha_bar[-1] == 0


def test_sigmoid_betas_are_symmetric_about_the_middle_of_their_limits():
    found = betas(sigmoid_beta(101, 0.01, 0.03, rescale=False))
    np.testing.assert_allclose(found + found[::-1], np.full(101, 0.04), rtol=1e-10)
    assert found[0] == pytest.approx(0.01 + 0.02 / (1 + math.exp(6)), rel=1e-10)


def test_dpm2015_without_floors_leaves_the_share_that_gamma_functions_give():
    """The product of (x - 1) / x over x = 2, 2 + d, ..., T with d = (T - 2) / (T - 1), about 1 / T."""
    for T in (10, 100, 1000):
        d = (T - 2) / (T - 1)
        lgamma = math.lgamma
        share = math.exp(lgamma(1 / d + T) - lgamma(1 / d) + lgamma(2 / d) - lgamma(2 / d + T))
        left = dpm2015(T, min_beta=0, step1_beta=0).alpha_bar[-1].item()
        assert left == pytest.approx(share, rel=1e-3)  # their betas are smaller by 1e-5 of themselves
        assert left == pytest.approx(1 / T, rel=0.25)


def test_dpm2015_raises_the_first_beta_by_the_least_variance_of_the_model():
    """Their code: min_beta + baseline * (1 - min_beta - 1e-5)."""
    found = betas(dpm2015(1000, **SOHL_DICKSTEIN))
    assert found[0] == pytest.approx(1.001e-3 + 1e-3 * (1 - 1.001e-3 - 1e-5), rel=1e-10)
    assert found[-1] == pytest.approx(1e-6 + 0.5 * (1 - 1e-6 - 1e-5), rel=1e-10)


def test_vp_in_four_steps_is_the_table_of_denoising_diffusion_gans():
    schedule = vp(4, **SONG)
    np.testing.assert_allclose(betas(schedule), [0.478255, 0.849206, 0.956418, 0.987404], atol=5e-7)
    np.testing.assert_allclose(schedule.alpha_bar[1:].numpy(), [0.521745, 0.078676, 0.003429, 4.319e-5], rtol=2e-4)
    variances = [schedule.posterior_variance(t - 1, t) for t in range(1, 5)]
    np.testing.assert_allclose(variances, [0, 0.440819, 0.884202, 0.984061], atol=5e-7)


def test_vp_ends_at_the_same_noise_whatever_its_length_and_tends_to_the_linear_schedule():
    """log alpha_bar(T) = -(beta_min + beta_max) / 2 from t_min = 0; betas of 0.1 / T to 20 / T come near to it."""
    song = SONG | {"t_min": 0}
    for T in (1, 4, 1000):
        assert vp(T, **song).alpha_bar[-1].item() == pytest.approx(math.exp(-10.05), rel=1e-12)
    fine = linear(100_000, 1e-6, 2e-4, rescale=False).alpha_bar[::1000]
    np.testing.assert_allclose(vp(100, **song).alpha_bar.log().numpy(), fine.log().numpy(), atol=2e-3)


@pytest.mark.parametrize("num_timesteps", [1, 10, 1000, 4000])
def test_betas_equal_those_of_lucidrains(num_timesteps):
    T = num_timesteps
    np.testing.assert_allclose(betas(cosine(T, **NICHOL)), lucidrains.cosine_beta_schedule(T).numpy(), rtol=1e-9)
    theirs = lucidrains.sigmoid_beta_schedule(T, np.float64(-3), np.float64(3))  # plain numbers it makes float32
    np.testing.assert_allclose(betas(sigmoid(T, **JABRI)), theirs.numpy(), rtol=1e-9)
    if T > 20:
        theirs = lucidrains.linear_beta_schedule(T).numpy()
        np.testing.assert_allclose(betas(linear(T, **HO, rescale=True)), theirs, rtol=1e-9)


@pytest.mark.parametrize("name", ANY_LENGTH)
@pytest.mark.parametrize("num_timesteps", [1, 2, 3, 7, 100, 1000, 4000])
def test_any_number_of_timesteps_works_and_the_signal_to_noise_ratio_falls(name, num_timesteps):
    schedule = ANY_LENGTH[name](num_timesteps)
    snr = [schedule.snr(t) for t in range(1, schedule.T + 1)]
    assert len(snr) == num_timesteps
    assert all(math.isfinite(ratio) and ratio >= 0 for ratio in snr)
    assert all(later < earlier for earlier, later in itertools.pairwise(snr))


@pytest.mark.parametrize("name", RESCALED)
def test_a_rescaled_schedule_ends_at_the_same_noise_whatever_its_length(name):
    """log alpha_bar(T) tends to minus the integral of beta, and differs from it by the sum of beta^2 / 2 = O(1 / T)."""
    ends = {T: math.log(RESCALED[name](T).alpha_bar[-1].item()) for T in (100, 1000, 4000, 16000)}
    start, end = HO["beta_start"], HO["beta_end"]
    mean_beta = {
        "constant": 0.01,
        "linear": (start + end) / 2,
        "quadratic": (start + (start * end) ** 0.5 + end) / 3,
        "sigmoid_beta": (start + end) / 2,
        "warmup": 0.1 * (start + end) / 2 + 0.9 * end,
    }
    limit = -1000 * mean_beta[name]
    assert ends[16000] == pytest.approx(limit, rel=0.01)
    for T, log_end in ends.items():
        assert abs(log_end - limit) < 300 / T
    assert ends[1000] - ends[4000] == pytest.approx(4 * (ends[4000] - ends[16000]), rel=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linear("abc", **HO, rescale=True), "num_timesteps must be a positive integer, got 'abc'"),
        (lambda: cosine(0, **NICHOL), "num_timesteps must be a positive integer, got 0"),
        (lambda: jsd(2.0), "num_timesteps must be a positive integer, got 2.0"),
        (lambda: linear(20, **HO, rescale=True), "beta_end must be less than 1 after the rescaling by 1000 / T"),
        (lambda: linear(20, **HO, rescale=True), "rescale=false"),
        (lambda: linear(10, 1e-4, 1.0, rescale=False), "beta_end must be greater than 0 and less than 1, got 1.0"),
        (lambda: constant(10, 0, rescale=False), "beta must be greater than 0 and less than 1, got 0"),
        (lambda: constant(10, "x", rescale=False), "beta must be a number, got 'x'"),
        (lambda: constant(10, 0.01, rescale="yes"), "rescale must be true or false, got 'yes'"),
        (lambda: warmup(10, **HO, fraction=1.5, rescale=False), "fraction must be a number at least 0 and at most 1"),
        (lambda: cosine(10, offset=-0.1, max_beta=0.999), "offset must be a number at least 0, got -0.1"),
        (lambda: cosine(10, offset=0.008, max_beta=1.1), "max_beta must be a number at least 0 and at most 1"),
        (lambda: sigmoid(10, 3, -3, 1, 0.999), "end must be greater than start (3), got -3"),
        (lambda: sigmoid(10, -3, 3, 0, 0.999), "temperature must be greater than 0, got 0"),
        (lambda: sigmoid(10, -3, 3, 1e-3, 0.999), "betas must be in (0, 1], got 0 at t = 1; take a gentler curve"),
        (lambda: constant(2000, 0.9, rescale=False), "take smaller betas or fewer num_timesteps"),
        (lambda: sigmoid_beta(20, **HO, rescale=True), "beta_end must be less than 1 after the rescaling by 1000 / T"),
        (lambda: vp(4, 20, 0.1, 1e-3), "beta_max must be greater than beta_min (20), got 0.1"),
        (lambda: vp(4, 0.1, 20, 1), "t_min must be at least 0 and less than 1, got 1"),
        (lambda: dpm2015(10, -1, 0), "min_beta must be a number at least 0 and at most 0.5, got -1"),
        (lambda: shifted(10, 0, 64, of=jsd(10)), "base must be greater than 0, got 0"),
        (lambda: shifted(10, 64, "big", of=jsd(10)), "size must be a number, got 'big'"),
        (lambda: shifted(10, 64, 32, of=jsd(5)), "num_timesteps must equal that of the adjusted schedule, 5"),
        (lambda: shifted(10, 64, 32, of="linear"), "of must be a schedule, which is chosen as schedule@schedule.of="),
        (lambda: zero_terminal_snr(1, of=jsd(1)), "num_timesteps must be an integer of at least 2, got 1"),
    ],
)
def test_what_cannot_be_a_schedule_is_refused_with_the_field_and_the_remedy(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
