"""How fast each sampler's error falls, against its stated order, on data where the truth is known to all digits.

T = 100,000 so that rounding to whole times has no part in it; the grid of Karras et al. 2022.
"""

import dataclasses
import functools
import itertools
import math

import diffusers
import numpy as np
import pytest
import torch
from densities import log_density
from every_sampler import AFFINE_WITH_NOISE, GRIDS, WITHOUT_NOISE, made

from ddpm.base.rng import Rng
from ddpm.base.types import Prediction
from ddpm.diffusion.exact.affine import Normal, output_distribution, wasserstein
from ddpm.diffusion.exact.oracle import GaussianOracle, MixtureOracle, OracleDenoiser, ring
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.samplers import timestep_spacing
from ddpm.diffusion.samplers.base import State
from ddpm.diffusion.samplers.dpm_solver import DPMSolver3MMemory
from ddpm.diffusion.samplers.multistep import Past, multistep_update
from ddpm.diffusion.samplers.pndm import adams_weights
from ddpm.diffusion.schedules.betas import linear
from ddpm.diffusion.schedules.curves import cosine
from ddpm.evaluation.model_metrics.sampler_error import exact_flow

SCHEDULE = linear(100_000, 1e-4, 0.02, rescale=True)
PROCESS = GaussianDiffusion(SCHEDULE)
ORACLE = GaussianOracle([0.3, -0.2], [[0.25, 0.1], [0.1, 0.16]])
DENOISER = OracleDenoiser(ORACLE, SCHEDULE)
START = torch.tensor([[-2.0, 1.0], [0.5, 0.5], [1.5, -1.0]], dtype=torch.float64).view(3, 1, 1, 2)


STEPS = {"pndm": [160, 320, 640], "dpm_solver_3m_published": [160, 320, 640], "unipc_3": [40, 80, 160]}
"""The errors of the first two change their sign before; that of the last is soon that of rounded times."""


@functools.cache
def times(start, num_steps):
    return timestep_spacing.rho(start, num_steps, SCHEDULE, 7)


def rho(start, num_steps, schedule):
    return times(start, num_steps)


def order_of(steps, errors):
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


def path_error(name, steps):
    """At the last time before 0: the step from there is DDIM's for all of them, and its error, 5e-6, does not fall."""
    sampler = made(name, PROCESS, steps, rho)
    *_, last, _ = sampler.trajectory(DENOISER, START, Rng(0, "sample"), torch.arange(3))
    return (last.x_t - ORACLE.flow(START, SCHEDULE.T, last.t, SCHEDULE)).abs().max().item()


@pytest.mark.parametrize("name", WITHOUT_NOISE)
def test_the_error_against_the_exact_flow_falls_with_the_stated_order(name):
    steps = STEPS.get(name, [40, 80, 160, 320])
    stated = made(name, PROCESS, 10).order
    assert order_of(steps, [path_error(name, n) for n in steps]) == pytest.approx(stated, abs=0.25)


@pytest.mark.parametrize("name", AFFINE_WITH_NOISE)
def test_the_distribution_of_a_sampler_with_noise_nears_the_data_with_the_stated_order(name):
    """Its 2-Wasserstein distance, exact: no chance is left in it."""
    truth = Normal(torch.tensor(ORACLE.mean).double(), torch.tensor(ORACLE.covariance).double())
    steps = [20, 40, 80, 160]
    errors = [
        wasserstein(output_distribution(made(name, PROCESS, n, rho), DENOISER, ORACLE.shape), truth) for n in steps
    ]
    assert order_of(steps, errors) == pytest.approx(made(name, PROCESS, 10).order, abs=0.25)


def test_the_exact_distribution_is_that_of_many_samples():
    """n = 40,000: the mean to 4 / sqrt(n) of the width, the covariance to 4 sqrt(2 / n)."""
    sampler = made("ancestral_large", PROCESS, 6, rho)
    mean, covariance = output_distribution(sampler, DENOISER, ORACLE.shape)
    x = sampler.sample(DENOISER, ORACLE.shape, Rng(0, "sample"), torch.arange(40_000)).double().flatten(1)
    assert torch.allclose(x.mean(0), mean, rtol=0, atol=4 / 200 * 0.6)
    assert torch.allclose(x.T.cov(), covariance, rtol=0, atol=4 * math.sqrt(2 / 40_000) * 0.3)


def test_the_wasserstein_distance_of_gaussians_has_its_closed_form_where_they_commute():
    one = Normal(torch.zeros(2).double(), torch.diag(torch.tensor([1.0, 4.0])).double())
    other = Normal(torch.tensor([3.0, 4.0]).double(), torch.diag(torch.tensor([4.0, 9.0])).double())
    assert wasserstein(one, other) == pytest.approx(math.sqrt(25 + 1 + 1), rel=1e-12)
    assert wasserstein(one, one) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_a_corrector_through_enough_points_is_exact_for_a_polynomial_in_lambda(degree):
    """x_s = (sigma_s / sigma_t) x_t + sigma_s times the integral of exp(lambda) x0(lambda), by Gauss and Legendre.

    The weights for one place alone are the paper's simplification, hence from two points on.
    """
    lam = SCHEDULE.half_log_snr
    times = [50_000, 60_000, 72_000, 80_000]
    t, s = times[0], 41_000

    def x0(u):
        return 0.3 + 0.7 * u - 0.2 * u**2 * (degree > 1) + 0.5 * u**3 * (degree > 2)

    past = [Past(time, torch.full((1,), x0(lam(time)), dtype=torch.float64)) for time in times[: max(degree, 2)]]
    there = Past(s, torch.full((1,), x0(lam(s)), dtype=torch.float64))
    x_t = torch.full((1,), 0.4, dtype=torch.float64)
    places, weights = np.polynomial.legendre.leggauss(20)
    u = lam(t) + (lam(s) - lam(t)) * (places + 1) / 2
    integral = (np.exp(u) * x0(u) * weights).sum() * (lam(s) - lam(t)) / 2
    expected = SCHEDULE.sigma(s) / SCHEDULE.sigma(t) * 0.4 + SCHEDULE.sigma(s) * integral
    assert multistep_update(SCHEDULE, x_t, tuple(past), s, there).item() == pytest.approx(expected, rel=1e-9)


def test_the_third_step_of_the_solver_of_third_order_is_exact_for_a_parabola_and_diffusers_is_not():
    """Lu et al.'s code, and diffusers after it, count the curvature half: the closed form decides."""
    lam = SCHEDULE.half_log_snr
    times, s = [50_000, 60_000, 72_000], 41_000

    def x0(u):
        return 0.3 + 0.7 * u - 0.2 * u**2

    class Parabola:
        def __call__(self, x_t, t, cond):
            return Prediction(torch.full((1, 1, 1, 1), x0(lam(t)), dtype=torch.float64))

    x_t = torch.full((1, 1, 1, 1), 0.4, dtype=torch.float64)
    past = tuple(Past(t, torch.full((1, 1, 1, 1), x0(lam(t)), dtype=torch.float64)) for t in times[1:])
    sampler = made("dpm_solver_3m", PROCESS, 10)
    state = sampler.step(Parabola(), State(times[0], x_t, None, DPMSolver3MMemory(past, x_t)), s, {}, None)
    places, weights = np.polynomial.legendre.leggauss(20)
    u = lam(times[0]) + (lam(s) - lam(times[0])) * (places + 1) / 2
    integral = (np.exp(u) * x0(u) * weights).sum() * (lam(s) - lam(times[0])) / 2
    exact = SCHEDULE.sigma(s) / SCHEDULE.sigma(times[0]) * 0.4 + SCHEDULE.sigma(s) * integral
    assert state.x_t.item() == pytest.approx(exact, rel=1e-9)

    theirs = diffusers.DPMSolverMultistepScheduler(solver_order=3)
    sigmas = [SCHEDULE.sigma(t) / SCHEDULE.alpha(t) for t in (*times[::-1], s)]
    theirs.sigmas = torch.tensor(sigmas, dtype=torch.float64)
    theirs._step_index = 2
    outputs = [each.x0 for each in past[::-1]] + [torch.full((1, 1, 1, 1), x0(lam(times[0])), dtype=torch.float64)]
    found = theirs.multistep_dpm_solver_third_order_update(outputs, sample=x_t).item()
    bend = -0.2  # half the second derivative
    h = lam(s) - lam(times[0])
    missing = SCHEDULE.alpha(s) * (0.5 - (math.expm1(-h) + h) / h**2) * bend * h**2
    assert exact - found == pytest.approx(missing, rel=1e-9)
    assert abs(missing) > 1e-4


def test_the_weights_of_adams_and_bashforth_on_an_even_grid():
    assert adams_weights((100,), 90) == pytest.approx([1])
    assert adams_weights((100, 110), 90) == pytest.approx([3 / 2, -1 / 2], rel=1e-12)
    assert adams_weights((100, 110, 120), 90) == pytest.approx([23 / 12, -16 / 12, 5 / 12], rel=1e-12)
    assert adams_weights((100, 110, 120, 130), 90) == pytest.approx([55 / 24, -59 / 24, 37 / 24, -9 / 24], rel=1e-12)


def test_the_ideal_denoiser_of_a_mixture_is_the_posterior_mean_by_quadrature():
    oracle = MixtureOracle([[-0.6], [0.1], [0.7]], 0.15)
    x0 = np.linspace(-2, 2, 40_001)
    density = sum(np.exp(-((x0 - c) ** 2) / (2 * 0.15**2)) for c in (-0.6, 0.1, 0.7))
    density /= density.sum()
    for alpha, sigma, x_t in itertools.product((0.9, 0.3), (0.2, 0.8), (-0.5, 0.2)):
        joint = density * np.exp(-((x_t - alpha * x0) ** 2) / (2 * sigma**2))
        expected = (joint * x0).sum() / joint.sum()
        found = oracle.x0(torch.full((1, 1, 1, 1), x_t, dtype=torch.float64), alpha, sigma).item()
        assert found == pytest.approx(expected, rel=1e-10)


def test_the_score_is_the_gradient_of_the_log_density():
    """Tweedie's formula, for the property that langevin uses."""
    for oracle in (ORACLE, MixtureOracle([[-0.6, 0.1], [0.1, 0.5]], 0.15)):
        t = 40_000
        x = START.clone().requires_grad_()
        log_density(oracle, x, SCHEDULE.alpha(t), SCHEDULE.sigma(t)).sum().backward()
        x0 = oracle.x0(START, SCHEDULE.alpha(t), SCHEDULE.sigma(t))
        torch.testing.assert_close(PROCESS.score(START, x0, t), x.grad, rtol=1e-9, atol=1e-9)


def test_oracle_data_have_the_mean_and_covariance_that_they_say():
    """n = 40,000."""
    draws = Rng(0, "data").at(0, torch.arange(40_000))
    x = ORACLE.draw(draws).flatten(1)
    assert torch.allclose(x.mean(0), torch.tensor(ORACLE.mean).double(), rtol=0, atol=4 / 200 * 0.5)
    assert torch.allclose(x.T.cov(), torch.tensor(ORACLE.covariance).double(), rtol=0, atol=0.01)
    parts = MixtureOracle([[-0.6, 0.1], [0.1, 0.5]], 0.0).draw(draws).flatten(1)
    assert sorted({tuple(round(v, 6) for v in row) for row in parts.tolist()}) == [(-0.6, 0.1), (0.1, 0.5)]


@pytest.mark.parametrize("covariance", [[[1.0]], [[1.0, 0.5], [0.2, 1.0]], [[1.0, 2.0], [2.0, 1.0]]])
def test_what_is_no_covariance_is_refused(covariance):
    with pytest.raises(ValueError, match="covariance must be 2 x 2, symmetric, with eigenvalues above 0"):
        GaussianOracle([0.0, 0.0], covariance)


TARGETS = {
    "N(0, 1)": GaussianOracle([0.0], [[1.0]]),
    "N(0, 0.25)": GaussianOracle([0.0], [[0.25]]),
    "two": MixtureOracle([[-0.6, 0.2], [0.5, 0.4]], 0.2),
    "ring": ring(8, 0.75, 0.1),
}


ROUGH = {"linear": linear(1000, 1e-4, 0.02, rescale=True), "cosine": cosine(1000, 0.008, 0.999)}


@functools.cache
def flow(target, schedule):
    """x_T, and the sample at the end of the exact flow from it."""
    oracle, process = TARGETS[target], GaussianDiffusion(ROUGH[schedule])
    x = process.prior(oracle.shape, Rng(0, "prior").at(0, torch.arange(16))).double()
    x_1 = exact_flow(oracle, process.schedule, x, process.T, 1)
    return x, OracleDenoiser(oracle, process.schedule)(x_1, 1, {}).x0


def distance(target, schedule, name, spacing, steps, **settings):
    x, end = flow(target, schedule)
    process = GaussianDiffusion(ROUGH[schedule])
    sampler = dataclasses.replace(made(name, process, steps, GRIDS[spacing]), **settings)
    denoiser = OracleDenoiser(TARGETS[target], process.schedule)
    *_, last = sampler.trajectory(denoiser, x, Rng(0, "sample"), torch.arange(16))
    return (last.x_t - end).square().sum().sqrt().item()


@pytest.mark.parametrize(
    ("name", "other", "settings"),
    [
        ("dpm_solver_3m", "dpm_solver_3m", {"largest_growth": math.inf, "largest_step": math.inf}),
        ("dpm_solver_3m", "dpm_solver_3m_published", {}),
        ("dpm_solver_3m", "dpm_solver", {}),
        ("unipc_3", "unipc_3", {"lower_order_final": False}),
    ],
)
def test_a_default_errs_less_than_its_alternative_over_four_targets(name, other, settings):
    """The geometric mean over linear and cosine schedules, two grids and few and many steps: at least 5 % less."""
    cases = list(itertools.product(TARGETS, ROUGH))
    runs = list(itertools.product(["uniform", "rho"], [6, 10, 24]))
    errors = [distance(*case, name, *run) for case, run in itertools.product(cases, runs)]
    others = [distance(*case, other, *run, **settings) for case, run in itertools.product(cases, runs)]
    assert np.mean(np.log(errors) - np.log(others)) < -0.05


def test_a_long_step_at_little_noise_is_no_ddim_step_in_pndm():
    """The former rule, which acted wherever sigma / alpha fell tenfold, cost a hundred times the error there."""
    case = "N(0, 0.25)", "linear", "pndm", "log_snr", 5
    assert distance(*case) < distance(*case, euler_above=0.0) / 20


def test_heun_without_its_rule_fails_where_a_step_begins_above_the_noise_of_edm():
    """The first of ten even steps of the cosine schedule: sigma / alpha falls from 20,000 to 6."""
    for target in TARGETS:
        case = target, "cosine", "heun", "uniform", 10
        assert distance(*case) < distance(*case, euler_above=math.inf) / 10
