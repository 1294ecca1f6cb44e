"""What every sampler must do, for any T, number of steps, start, schedule, objective and grid."""

import functools
import math

import pytest
import torch
from every_sampler import ALL, EDM, GRIDS, SCHEDULES, WITHOUT_NOISE, made
from hypothesis import given, settings
from hypothesis import strategies as st
from precision import assert_same

from ddpm.base.rng import Rng
from ddpm.base.types import Prediction
from ddpm.diffusion.binomial import BinomialDiffusion
from ddpm.diffusion.denoiser import X0_GUESS, NetworkDenoiser, StaticThresholding
from ddpm.diffusion.exact.oracle import MixtureOracle, OracleDenoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.objective import X0, Eps, V
from ddpm.diffusion.samplers import timestep_spacing
from ddpm.diffusion.samplers.base import State
from ddpm.diffusion.samplers.edm import Heun
from ddpm.diffusion.samplers.unipc import UniPC
from ddpm.diffusion.schedules.betas import linear
from ddpm.diffusion.schedules.curves import cosine, jsd

RNG = Rng(0, "sample")
EVERY_SAMPLER = pytest.mark.parametrize("name", ALL)


class Counted:
    def __init__(self, denoiser):
        self.denoiser, self.calls = denoiser, []

    def __call__(self, x_t, t, cond):
        assert t >= 1
        self.calls.append(t)
        return self.denoiser(x_t, t, cond)


def wave(x, time):
    """A network of a kind: any smooth, bounded function."""
    return (x + 0.01 * time.view(-1, 1, 1, 1)).sin()


@settings(deadline=None, max_examples=150)
@given(st.data(), st.sampled_from(sorted(ALL)), st.sampled_from(sorted(SCHEDULES)), st.sampled_from(sorted(GRIDS)))
def test_any_run_ends_at_zero_finite_with_as_many_evaluations_as_it_says(data, name, schedule, times):
    T = data.draw(st.integers(1, 60), "T")
    process = GaussianDiffusion(SCHEDULES[schedule](T))
    objective = data.draw(st.sampled_from([X0, V] if schedule == "jsd" else [Eps, X0, V]))(process.schedule)
    steps, start = data.draw(st.none() | st.integers(1, T), "steps"), data.draw(st.integers(1, T), "start")
    denoiser = Counted(StaticThresholding(NetworkDenoiser(wave, objective)))
    ids = torch.arange(2)
    sampler = made(name, process, steps, GRIDS[times])
    x = process.prior((1, 2, 2), RNG.at(T, ids))
    states = list(sampler.trajectory(denoiser, x, RNG, ids, start=start))
    visited = [start, *(state.t for state in states)]
    assert visited == sorted(set(visited), reverse=True)
    assert visited[-1] == 0
    assert all(state.x_t.isfinite().all() for state in states)
    assert len(states) == max(1, round((steps or T) * start / T))
    denoiser.calls.clear()
    sampler.sample(denoiser, (1, 2, 2), RNG, ids)
    assert len(denoiser.calls) == sampler.evaluations()


@EVERY_SAMPLER
def test_sample_17_is_the_same_whatever_the_batch_it_is_drawn_in(name):
    process = GaussianDiffusion(linear(1000, 1e-4, 0.02, rescale=True))
    sampler, ids = made(name, process, 10), torch.arange(40)
    denoiser = StaticThresholding(NetworkDenoiser(wave, Eps(process.schedule)))

    def samples(ids):
        *_, last = sampler.trajectory(denoiser, process.prior((3, 4, 4), RNG.at(1000, ids)).double(), RNG, ids)
        return last.x_t

    whole = samples(ids)
    for size in (1, 7):
        assert_same(torch.cat([samples(part) for part in ids.split(size)]), whole)
    assert not torch.equal(whole[16], whole[17])


@EVERY_SAMPLER
@pytest.mark.parametrize("steps", [1, 3, 50])
def test_data_of_one_point_give_that_point(name, steps):
    process = GaussianDiffusion(linear(1000, 1e-4, 0.02, rescale=True))
    point = torch.linspace(-1, 1, 16, dtype=torch.float64).view(1, 1, 4, 4)
    states = made(name, process, steps).trajectory(
        lambda x_t, t, cond: Prediction(point.expand_as(x_t)),
        process.prior((1, 4, 4), RNG.at(1000, torch.arange(3))).double(),
        RNG,
        torch.arange(3),
    )
    *_, last = states
    # pndm takes its last step with an extrapolated eps, which keeps the rounding of 1 / sigma
    assert torch.allclose(last.x_t, point.expand(3, 1, 4, 4), rtol=0, atol=1e-9)


@EVERY_SAMPLER
def test_a_run_does_not_write_on_what_it_was_given(name):
    process = GaussianDiffusion(linear(100, 1e-4, 0.02, rescale=True))
    x, predicted = torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.5)
    states = list(
        made(name, process, 6).trajectory(lambda x_t, t, cond: Prediction(predicted), x, RNG, torch.arange(1))
    )
    assert torch.equal(x, torch.ones(1, 1, 2, 2))
    assert torch.equal(predicted, torch.full((1, 1, 2, 2), 0.5))
    assert len({state.x_t.data_ptr() for state in states}) == len(states)


@pytest.mark.parametrize("name", WITHOUT_NOISE)
def test_the_samplers_without_noise_reach_the_same_image_with_all_steps(name):
    """One ODE, a mixture of two parts: DDIM with 20,000 steps is the reference, its own error 2e-4."""
    reference, last = end_of_the_mixture("ddim", None), end_of_the_mixture(name, 1000, GRIDS["rho"])
    assert torch.allclose(last, reference, rtol=0, atol=4e-3)


@functools.cache
def end_of_the_mixture(name, *settings):
    process = GaussianDiffusion(linear(20_000, 1e-4, 0.02, rescale=True))
    denoiser = OracleDenoiser(MixtureOracle([[-0.6, 0.2], [0.5, 0.4]], 0.2), process.schedule)
    x = process.prior((1, 1, 2), RNG.at(0, torch.arange(8))).double()
    *_, last = made(name, process, *settings).trajectory(denoiser, x, RNG, torch.arange(8))
    return last.x_t


def test_euler_in_the_variable_of_edm_is_ddim():
    process = GaussianDiffusion(cosine(1000, 0.008, 0.999))
    denoiser = StaticThresholding(NetworkDenoiser(wave, V(process.schedule)))
    x, ids = process.prior((3, 4, 4), RNG.at(0, torch.arange(2))).double(), torch.arange(2)
    euler = made("euler", process, 25).trajectory(denoiser, x, RNG, ids)
    ddim = made("ddim", process, 25).trajectory(denoiser, x, RNG, ids)
    for one, other in zip(euler, ddim, strict=True):
        assert_same(one.x_t, other.x_t)


def test_the_sde_solver_of_constant_x0_is_the_ancestral_step():
    process = GaussianDiffusion(linear(1000, 1e-4, 0.02, rescale=True))
    x0, ids = torch.full((2, 1, 2, 2), 0.3, dtype=torch.float64), torch.arange(2)
    x = process.prior((1, 2, 2), RNG.at(0, ids)).double()
    runs = [
        made(name, process, 12).trajectory(lambda x_t, t, cond: Prediction(x0), x, RNG, ids)
        for name in ("sde_dpm_solver", "ancestral_small")
    ]
    for one, other in zip(*runs, strict=True):
        assert torch.allclose(one.x_t, other.x_t, rtol=0, atol=1e-12)


def test_churn_takes_a_step_up_with_the_variance_of_the_forward_process():
    """n = 16,384 pixels: from x_t of one point, x at the noisier time has its mean and variance."""
    process = GaussianDiffusion(linear(1000, 1e-4, 0.02, rescale=True))
    seen = []

    def denoiser(x_t, t, cond):
        seen.append((t, x_t))
        return Prediction(torch.zeros_like(x_t))

    ids, t = torch.arange(256), 500
    sampler = Heun(process, timestep_spacing.uniform, 18, churn=9.0, **EDM)
    x = process.apply(torch.full((256, 1, 8, 8), 0.5), process.prior((1, 8, 8), RNG.at(7, ids)), t)
    sampler.step(denoiser, State(t, x), 400, {}, RNG.at(400, ids))
    higher, there = seen[0]
    ratio = math.sqrt(1 / process.schedule.snr(t))
    assert math.sqrt(1 / process.schedule.snr(higher)) == pytest.approx(
        1.4142 * ratio, rel=5e-3
    )  # 1 + min(9/18, 0.414)
    n = there.numel()
    assert abs(there.mean() - 0.5 * process.schedule.alpha(higher)) < 4 * process.schedule.sigma(higher) / math.sqrt(n)
    assert there.var() == pytest.approx(process.schedule.sigma(higher) ** 2, rel=4 * math.sqrt(2 / n))


def test_churn_outside_its_range_of_noise_does_nothing():
    process = GaussianDiffusion(linear(1000, 1e-4, 0.02, rescale=True))
    sampler = Heun(process, timestep_spacing.uniform, 18, churn=9.0, churn_low=0.05, churn_high=1.0, noise_scale=1.0)
    ratio = {t: math.sqrt(1 / process.schedule.snr(t)) for t in (5, 200, 900)}
    assert ratio[5] < 0.05 < ratio[200] < 1 < ratio[900]
    assert sampler.churned(5) == 5
    assert sampler.churned(200) > 200
    assert sampler.churned(900) == 900


def test_langevin_keeps_the_distribution_of_a_time_but_for_its_own_bias():
    """Steps of size e on N(0, v) have the variance v / (1 - e / (2 v)) in the end: the closed form. n = 200,000."""
    process = GaussianDiffusion(linear(1000, 1e-4, 0.02, rescale=True))
    sampler, s, ids, v = made("langevin", process, 10), 300, torch.arange(100), 0.7
    x = RNG.at(1, ids).normal("x", (1, 40, 50)).double() * math.sqrt(v)
    for step in range(60):
        x = sampler.corrected(x, -x / v, s, RNG.at(step, ids), "correction")
    kept = process.schedule.alpha_bar[s] / process.schedule.alpha_bar[s - 1]
    size = (
        2 * kept.item() * 0.16**2 * (1 - process.schedule.alpha_bar[s].item())
    )  # Song et al.: 2 alpha (r |z| / |g|)^2
    assert sampler.step_size(s) == pytest.approx(size, rel=1e-9)
    assert x.var().item() == pytest.approx(v / (1 - size / (2 * v)), rel=4 * math.sqrt(2 / 200_000))


@pytest.mark.parametrize("name", [name for name in ALL if not name.startswith("ancestral")])
def test_a_sampler_of_the_gaussian_process_refuses_another(name):
    with pytest.raises(ValueError, match="needs process=gaussian, not BinomialDiffusion; use sampler=ancestral"):
        made(name, BinomialDiffusion(jsd(10)), 5)


def test_a_sampler_hands_on_the_x0_that_it_predicted_last():
    """For self-conditioned networks: nothing at the first step, then what the step before predicted, clipped."""
    process, told = GaussianDiffusion(linear(100, 1e-4, 0.02, rescale=True)), []

    def denoiser(x_t, t, cond):
        told.append(cond.get(X0_GUESS))
        return Prediction(torch.full_like(x_t, float(t)))

    made("ddim", process, 4).sample(StaticThresholding(denoiser), (1, 1, 1), RNG, torch.arange(1))
    assert told[0] is None
    assert [guess.item() for guess in told[1:]] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: UniPC(p, timestep_spacing.uniform, 5, 4), "predictor_order must be an integer in 1..3"),
        (
            lambda p: Heun(p, timestep_spacing.uniform, 5, -1.0, 0.0, 1.0, 1.0),
            "churn must be a number at least 0, got -1.0",
        ),
        (
            lambda p: Heun(p, timestep_spacing.uniform, 5, 1.0, 2.0, 1.0, 1.0),
            "churn_high must be a number at least 2, got 1.0",
        ),
    ],
)
def test_a_wrong_number_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(GaussianDiffusion(linear(10, 1e-4, 0.02, rescale=False)))
