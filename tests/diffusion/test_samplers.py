"""The sampling loop and its rules, on data whose ideal denoiser is known.

For data N(mu, c^2) in each pixel the ideal estimate of x0 is linear in x_t, so every sampler's output is Gaussian, and
a recursion over two numbers, written out here in numpy, gives its mean and variance for any grid.
"""

import functools
import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from ddpm.base.rng import Rng
from ddpm.base.types import Prediction
from ddpm.diffusion.denoiser import StaticThresholding
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.samplers import timestep_spacing
from ddpm.diffusion.samplers.ancestral import Ancestral
from ddpm.diffusion.samplers.base import State
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.schedules.base import NoiseSchedule
from ddpm.diffusion.variance import FixedLarge, FixedSmall

T = 1000
ALPHA_BAR = np.r_[1, np.cumprod(1 - np.linspace(1e-4, 0.02, T))]
PROCESS = GaussianDiffusion(NoiseSchedule(torch.tensor(ALPHA_BAR)))
MU, C = 0.3, 0.5
RNG = Rng(0, "sample")
GRIDS = {"uniform": timestep_spacing.uniform, "quadratic": timestep_spacing.quadratic}


def gain(alpha_bar, c):
    """Cov(x0, x_t) / Var(x_t)."""
    return np.sqrt(alpha_bar) * c**2 / (alpha_bar * c**2 + 1 - alpha_bar)


@dataclass
class Ideal:
    """E[x0 | x_t] for data N(mu, c^2), and what it was asked."""

    mu: float = MU
    c: float = C
    alpha_bar: np.ndarray = field(default_factory=lambda: ALPHA_BAR)
    calls: list = field(default_factory=list)

    def __call__(self, x_t, t, cond):
        self.calls.append((t, cond))
        return Prediction(self.mu + gain(self.alpha_bar[t], self.c) * (x_t - np.sqrt(self.alpha_bar[t]) * self.mu))


def rules(s, t, kind, eta):
    """Factors of x0 and of x_t, and the variance, of a step: Ho et al. eqs. 6-7, Song et al. eqs. 12 and 16."""
    a_s, a_t = ALPHA_BAR[s], ALPHA_BAR[t]
    beta = 1 - a_t / a_s
    if kind == "ddim":
        variance = eta**2 * (1 - a_s) / (1 - a_t) * beta
        of_eps = np.sqrt(1 - a_s - variance)
        return np.sqrt(a_s) - of_eps * np.sqrt(a_t / (1 - a_t)), of_eps / np.sqrt(1 - a_t), variance
    variance = {"small": (1 - a_s) / (1 - a_t) * beta, "large": beta if s else 0}[kind]
    return np.sqrt(a_s) * beta / (1 - a_t), np.sqrt(1 - beta) * (1 - a_s) / (1 - a_t), variance


def exact_output(times, kind, eta=0.0, mean=0.0, variance=1.0):
    """Mean and variance of the sample, from those of x at times[0]."""
    for t, s in itertools.pairwise(times):
        of_x0, of_x_t, added = rules(s, t, kind, eta)
        k = gain(ALPHA_BAR[t], C)
        slope = of_x_t + of_x0 * k
        mean = slope * mean + of_x0 * MU * (1 - k * np.sqrt(ALPHA_BAR[t]))
        variance = slope**2 * variance + added
    return mean, variance


def sampler_of(kind, steps, eta=0.0, times=timestep_spacing.uniform, process=PROCESS):
    if kind == "ddim":
        return DDIM(process, times, steps, eta)
    return Ancestral(process, times, steps, {"small": FixedSmall(), "large": FixedLarge()}[kind])


ALL = [("small", 0), ("large", 0), ("ddim", 0), ("ddim", 0.5), ("ddim", 1)]
EVERY_SAMPLER = pytest.mark.parametrize(("kind", "eta"), ALL, ids=lambda value: str(value))


@EVERY_SAMPLER
def test_each_step_is_the_published_one_with_the_noise_of_its_destination(kind, eta):
    """Pathwise in float64, so the mean and the size of the noise are each right to all digits."""
    sampler, ids = sampler_of(kind, 12, eta, timestep_spacing.quadratic), torch.arange(3)
    x = expected = RNG.at(T, ids).normal("prior", (1, 4, 4)).double()
    times = timestep_spacing.quadratic(T, 12)
    states = list(sampler.trajectory(Ideal(), x, RNG, ids))
    for (t, s), state in zip(itertools.pairwise(times), states, strict=True):
        of_x0, of_x_t, variance = rules(s, t, kind, eta)
        noise = RNG.at(s, ids).normal("step", (1, 4, 4)).double()
        x0 = Ideal()(expected, t, {}).x0
        expected = of_x0 * x0 + of_x_t * expected + math.sqrt(variance) * noise
        assert state.t == s
        assert torch.allclose(state.x_t, expected, rtol=0, atol=1e-10)
        assert torch.allclose(state.prediction.x0, x0, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("kind", "c"), [("small", 0.0), ("large", 1.0)])
def test_each_fixed_variance_is_exact_for_its_own_data_in_any_number_of_steps(kind, c):
    """Ho et al. 2020, section 3.2: one point, or standard normal data; here with 3 steps. n = 16,384."""
    ids = torch.arange(256)
    x = RNG.at(T, ids).normal("prior", (1, 8, 8))
    for state in list(sampler_of(kind, 3).trajectory(Ideal(mu=0.0, c=c), x, RNG, ids))[:-1]:
        exact = ALPHA_BAR[state.t] * c**2 + 1 - ALPHA_BAR[state.t]
        assert state.x_t.double().var() == pytest.approx(exact, rel=4 * math.sqrt(2 / 16384))


@pytest.mark.parametrize("steps", [1, 2, 30, 250])
def test_ddim_with_eta_one_is_the_ancestral_step_with_the_small_variance(steps):
    ids = torch.arange(4)
    x = RNG.at(T, ids).normal("prior", (3, 4, 4)).double()
    ancestral = sampler_of("small", steps).trajectory(Ideal(), x, RNG, ids)
    ddim = sampler_of("ddim", steps, eta=1).trajectory(Ideal(), x, RNG, ids)
    for one, other in zip(ancestral, ddim, strict=True):
        assert one.t == other.t
        assert torch.allclose(one.x_t, other.x_t, rtol=0, atol=1e-10)


def test_ddim_takes_any_number_of_steps_from_1_to_1000():
    """The grid of latent diffusion, every (T // S)-th time plus 1, leaves the table for 599 of these numbers S."""
    assert sum(max(range(0, T, T // steps)) + 1 == T for steps in range(1, T + 1)) == 599
    for steps in range(1, T + 1):
        times = sampler_of("ddim", steps).times(T)
        assert len(times) == steps + 1
        assert (times[0], times[-1]) == (T, 0)
        assert all(t > s for t, s in itertools.pairwise(times))
        assert np.isfinite(exact_output(times, "ddim")).all()


@pytest.mark.parametrize("steps", [1, 3, 9, 27, 37, 110, 300, 334, 400, 999, 1000])
def test_ddim_runs_in_numbers_of_steps_that_latent_diffusion_refuses_or_changes(steps):
    denoiser, ids = Ideal(), torch.arange(2)
    *_, last = sampler_of("ddim", steps).trajectory(denoiser, torch.ones(2, 1, 1, 1).double(), RNG, ids)
    assert len(denoiser.calls) == steps
    exact = exact_output(sampler_of("ddim", steps).times(T), "ddim", mean=1.0)[0]
    assert torch.allclose(last.x_t, torch.full_like(last.x_t, exact), rtol=0, atol=1e-10)


@EVERY_SAMPLER
def test_a_run_that_starts_at_any_time_reaches_the_data_of_that_time(kind, eta):
    """x_start ~ q(x_start), as in interpolation or editing: mean and variance by the recursion. n = 16,384."""
    ids, start = torch.arange(256), 400
    z = RNG.at(0, ids).normal("data", (2, 8, 8))
    x = PROCESS.apply(MU + C * z[:, :1], z[:, 1:], start)
    *_, last = sampler_of(kind, 50, eta).trajectory(Ideal(), x, RNG, ids, start=start)
    a = ALPHA_BAR[start]
    mean, variance = exact_output(timestep_spacing.uniform(start, 20), kind, eta, np.sqrt(a) * MU, a * C**2 + 1 - a)
    assert abs(last.x_t.double().mean() - mean) < 4 * math.sqrt(variance / 16384)
    assert abs(last.x_t.double().var() - variance) < 4 * variance * math.sqrt(2 / 16384)


@EVERY_SAMPLER
def test_sample_17_is_bitwise_the_same_whatever_the_batch_it_is_drawn_in(kind, eta):
    sampler, ids = sampler_of(kind, 10, eta), torch.arange(40)
    whole = sampler.sample(StaticThresholding(Ideal()), (3, 5, 5), RNG, ids)
    for size in (1, 7):
        parts = [sampler.sample(StaticThresholding(Ideal()), (3, 5, 5), RNG, part) for part in ids.split(size)]
        assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(sampler.sample(StaticThresholding(Ideal()), (3, 5, 5), RNG, torch.tensor([17])), whole[17:18])
    assert not torch.equal(whole[16], whole[17])


def test_another_seed_gives_other_samples():
    sampler, ids = sampler_of("ddim", 5), torch.arange(2)
    one, other = (sampler.sample(Ideal(), (1, 4, 4), Rng(seed, "sample"), ids) for seed in (0, 1))
    assert not torch.equal(one, other)


def test_clipping_reaches_the_noise_that_ddim_infers():
    """x_s = alpha_s x0 + sigma_s eps with the clipped x0 in both terms, since eps is inferred from it."""
    x, s, t = torch.full((1, 1, 1, 2), 3.0, dtype=torch.float64), 500, 600
    x[..., 1] = -0.1

    def unclipped(x_t, t, cond):
        return Prediction(torch.tensor([1.7, 0.2], dtype=torch.float64).view(1, 1, 1, 2))

    state = sampler_of("ddim", 10).step(StaticThresholding(unclipped), State(t, x), s, {}, RNG.at(s, torch.arange(1)))
    x0 = np.array([1.0, 0.2])
    eps = (x.numpy().ravel() - np.sqrt(ALPHA_BAR[t]) * x0) / np.sqrt(1 - ALPHA_BAR[t])
    expected = np.sqrt(ALPHA_BAR[s]) * x0 + np.sqrt(1 - ALPHA_BAR[s]) * eps
    np.testing.assert_allclose(state.x_t.numpy().ravel(), expected, rtol=1e-12)


def test_a_variance_of_each_pixel_scales_the_noise_of_each_pixel():
    """As a learned variance does."""
    ids = torch.arange(2)
    per_pixel = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.zeros(2, 3, 4, 4, dtype=torch.float64)

    def zero(x_t, t, cond):
        return Prediction(torch.zeros_like(x_t))

    for part in (slice(0, 2), slice(0, 1)):
        draws = RNG.at(500, ids[part])
        sampler = Ancestral(
            PROCESS, timestep_spacing.uniform, 10, lambda schedule, prediction, s, t, part=part: per_pixel[part]
        )
        state = sampler.step(zero, State(600, x[part]), 500, {}, draws)
        assert torch.allclose(state.x_t, per_pixel[part].sqrt() * draws.normal("step", (3, 4, 4)), rtol=1e-12)


def test_a_sampler_describes_all_that_changes_its_samples():
    assert (
        sampler_of("ddim", 50, 0.5, timestep_spacing.quadratic).describe()
        == "DDIM(timestep_spacing=quadratic, eta=0.5)"
    )
    as_configured = functools.partial(timestep_spacing.uniform)
    assert (
        sampler_of("large", 50, times=as_configured).describe()
        == "Ancestral(timestep_spacing=uniform, variance=FixedLarge())"
    )
    with_a_number = functools.partial(timestep_spacing.uniform, num_steps=5)
    assert (
        sampler_of("ddim", 50, times=with_a_number).describe() == "DDIM(timestep_spacing=uniform(num_steps=5), eta=0.0)"
    )


def test_who_watches_sees_every_state_and_the_last_is_the_sample():
    seen = []
    x = sampler_of("ddim", 5).sample(Ideal(), (1, 2, 2), RNG, torch.arange(1), watch=seen.append)
    assert [state.t for state in seen] == [800, 600, 400, 200, 0]
    assert seen[-1].x_t is x


def test_the_conditions_reach_the_denoiser_at_every_step():
    denoiser, cond = Ideal(), {"label": torch.tensor([3])}
    sampler_of("small", 4).sample(denoiser, (1, 2, 2), RNG, torch.arange(1), cond)
    assert all(calls["label"] is cond["label"] for _, calls in denoiser.calls)


def test_a_run_keeps_no_graph_and_leaves_the_callers_gradients_on():
    weight = torch.ones(1, requires_grad=True)

    def denoiser(x_t, t, cond):
        return Prediction(x_t * weight)

    for state in sampler_of("ddim", 4, 1.0).trajectory(denoiser, torch.ones(1, 1, 2, 2), RNG, torch.arange(1)):
        assert not state.x_t.requires_grad
        assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sampler_of("ddim", 1001), "steps must be an integer in 1..1000, got 1001"),
        (lambda: sampler_of("ddim", 0), "steps must be an integer in 1..1000, got 0"),
        (lambda: sampler_of("ddim", "50"), "steps must be an integer in 1..1000, got '50'"),
        (lambda: sampler_of("ddim", 50, 1.5), "eta must be a number at least 0 and at most 1, got 1.5"),
        (lambda: sampler_of("ddim", 50, -0.5), "eta must be a number at least 0 and at most 1, got -0.5"),
    ],
)
def test_a_wrong_number_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("start", "num_ids", "message"),
    [
        (0, 1, "start must be an integer in 1..1000, got 0"),
        (1001, 1, "start must be an integer in 1..1000, got 1001"),
        (None, 2, "ids must be one for each of the 1 samples, got 2"),
    ],
)
def test_a_run_that_cannot_be_is_refused(start, num_ids, message):
    run = sampler_of("ddim", 5).trajectory(Ideal(), torch.ones(1, 1, 2, 2), RNG, torch.arange(num_ids), start=start)
    with pytest.raises(ValueError, match=message):
        next(run)
