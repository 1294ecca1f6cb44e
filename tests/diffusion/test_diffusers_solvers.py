"""Whole runs of the solvers beside diffusers', the same network and noise, with its tables in float64.

Both are in float64 from end to end, so what differs is a formula and not rounding.
"""

import dataclasses
import functools
import math

import diffusers
import numpy as np
import pytest
import torch
from diffusers import schedulers
from every_sampler import made
from precision import InDouble, assert_same, roundings

from ddpm.base.rng import Rng
from ddpm.diffusion.denoiser import NetworkDenoiser, StaticThresholding
from ddpm.diffusion.exact.oracle import OracleDenoiser, ring
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.objective import X0, Eps, V
from ddpm.diffusion.samplers import timestep_spacing
from ddpm.diffusion.schedules.betas import linear
from ddpm.diffusion.schedules.curves import cosine
from ddpm.evaluation.model_metrics.sampler_error import exact_flow

T = 1000
PROCESS = GaussianDiffusion(linear(T, 1e-4, 0.02, rescale=True))
OBJECTIVES = {"epsilon": Eps, "sample": X0, "v_prediction": V}
RNG, IDS = Rng(0, "sample"), torch.arange(2)
EVERY_OBJECTIVE = pytest.mark.parametrize("prediction_type", OBJECTIVES)
LAST_SIGMA = {"final_sigmas_type": "zero"}


def wave(x, time):
    return (x + 0.01 * time.view(-1, 1, 1, 1)).sin()


@pytest.fixture(autouse=True)
def their_numbers_in_double(monkeypatch):
    for name in ("dpmsolver_multistep", "unipc_multistep", "heun_discrete", "pndm"):
        monkeypatch.setattr(getattr(schedulers, f"scheduling_{name}"), "torch", InDouble())


def denoiser(prediction_type, clip=True):
    inner = NetworkDenoiser(wave, OBJECTIVES[prediction_type](PROCESS.schedule))
    return StaticThresholding(inner) if clip else inner


def start():
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def exact(scheduler, steps, **settings):
    """Their scheduler with the sigmas of the times that it visits in float64, and the times as whole numbers."""
    scheduler.set_timesteps(steps, **settings)
    times = [int(t) for t in scheduler.timesteps.tolist()]
    if isinstance(scheduler, diffusers.HeunDiscreteScheduler):
        times = [times[0], *times[1::2]]
    ratio = [PROCESS.schedule.sigma(t + 1) / PROCESS.schedule.alpha(t + 1) for t in times]
    scheduler.sigmas = torch.tensor([*ratio, 0.0], dtype=torch.float64)
    if isinstance(scheduler, diffusers.HeunDiscreteScheduler):
        twice = [ratio[0], *(r for r in ratio[1:] for _ in range(2)), 0.0, 0.0]
        scheduler.sigmas = torch.tensor(twice, dtype=torch.float64)
    return times


def ours(name, times, x, net, **settings):
    def visited(start, num_steps, schedule):
        return [*(t + 1 for t in times), 0]

    sampler = dataclasses.replace(made(name, PROCESS, None, visited), **settings)
    return list(sampler.trajectory(net, x, RNG, IDS, start=times[0] + 1))


@EVERY_OBJECTIVE
@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
@pytest.mark.parametrize("name", ["dpm_solver", "sde_dpm_solver"])
def test_each_step_of_dpm_solver_of_second_order_is_that_of_diffusers(name, spacing, prediction_type):
    theirs = diffusers.DPMSolverMultistepScheduler(
        T, timestep_spacing=spacing, prediction_type=prediction_type, solver_order=2, **LAST_SIGMA,
        algorithm_type="sde-dpmsolver++" if name == "sde_dpm_solver" else "dpmsolver++",
    )  # fmt: skip
    times, x = exact(theirs, 20), start()
    states = ours(name, times, x, denoiser(prediction_type, clip=False))
    for number, (time, state) in enumerate(zip(times, states, strict=True)):
        following = times[number + 1] + 1 if number + 1 < len(times) else 0
        noise = RNG.at(following, IDS).normal("step", (3, 4, 4)).double()
        output = wave(x, torch.full((2,), time))
        x = theirs.step(output, theirs.timesteps[number], x, variance_noise=noise).prev_sample
        assert_same(state.x_t, x)


@EVERY_OBJECTIVE
@pytest.mark.parametrize("order", [1, 2, 3])
def test_each_step_of_unipc_is_that_of_diffusers(order, prediction_type):
    theirs = diffusers.UniPCMultistepScheduler(
        T, timestep_spacing="trailing", prediction_type=prediction_type, solver_order=order, **LAST_SIGMA
    )
    times, x = exact(theirs, 20), start()
    states = ours(f"unipc_{order}", times, x, denoiser(prediction_type, clip=False))
    for number, (time, state) in enumerate(zip(times, states, strict=True)):
        x = theirs.step(wave(x, torch.full((2,), time)), theirs.timesteps[number], x).prev_sample
        assert_same(state.x_t, x)


@EVERY_OBJECTIVE
@pytest.mark.parametrize("spacing", ["trailing", "linspace", "leading"])
@pytest.mark.parametrize(("steps", "lower"), [(12, True), (12, False), (20, False)])  # theirs lowers below 15 alone
def test_each_step_of_the_published_3m_is_that_of_diffusers(steps, lower, spacing, prediction_type):
    theirs = diffusers.DPMSolverMultistepScheduler(
        T, timestep_spacing=spacing, prediction_type=prediction_type, solver_order=3, lower_order_final=lower,
        **LAST_SIGMA,
    )  # fmt: skip
    times, x = exact(theirs, steps), start()
    net = denoiser(prediction_type, clip=False)
    for number, state in enumerate(ours("dpm_solver_3m_published", times, x, net, lower_order_final=lower)):
        output = wave(x, torch.full((2,), times[number]))
        x = theirs.step(output, theirs.timesteps[number], x).prev_sample
        assert_same(state.x_t, x)


@EVERY_OBJECTIVE
@pytest.mark.parametrize("steps", [3, 4, 5, 9, 18])
def test_heun_on_the_grid_of_edm_is_algorithm_2_of_its_paper(steps, prediction_type):
    """Lines 4 to 11 without churn, on x_t / alpha_t; no step is replaced, however far sigma falls."""
    net, x = denoiser(prediction_type), start()
    times = timestep_spacing.rho(T, steps, PROCESS.schedule, 7, sigma_max=80)
    states = ours("heun", [t - 1 for t in times[:-1]], x, net)
    alpha, sigma = ([getattr(PROCESS.schedule, name)(t) for t in times] for name in ("alpha", "sigma"))
    y, noise = x / alpha[0], [s / a for s, a in zip(sigma, alpha, strict=True)]
    for i, state in enumerate(states):
        slope = (y - net(y * alpha[i], times[i], {}).x0) / noise[i]
        end = y + (noise[i + 1] - noise[i]) * slope
        if noise[i + 1] > 0:
            other = (end - net(end * alpha[i + 1], times[i + 1], {}).x0) / noise[i + 1]
            end = y + (noise[i + 1] - noise[i]) * (slope + other) / 2
        y = end
        assert_same(state.x_t / alpha[i + 1], y, 1e-9)


@pytest.mark.parametrize(
    ("name", "above", "calls"),
    [
        *[("heun", 0.0, 5), ("heun", 5.0, 5), ("heun", 100.0, 6), ("heun", math.inf, 7)],
        *[("pndm", 0.0, 7), ("pndm", 10.0, 10), ("pndm", math.inf, 13)],
    ],
)
def test_the_rule_of_long_steps_acts_where_its_option_says(name, above, calls):
    """sigma / alpha falls from 157 to 8.5 to 0.72, both more than tenfold, then to 0.21, and to 0."""
    ratios = [PROCESS.schedule.sigma(t) / PROCESS.schedule.alpha(t) for t in (1000, 650, 200, 60)]
    np.testing.assert_allclose(ratios, [157, 8.5, 0.72, 0.21], rtol=0.03)
    seen = []

    def network(x, time):
        seen.append(time)
        return wave(x, time)

    times = functools.partial(timestep_spacing.custom, times=[1000, 650, 200, 60])
    sampler = dataclasses.replace(made(name, PROCESS, None, times), euler_above=above)
    sampler.sample(NetworkDenoiser(network, Eps(PROCESS.schedule)), (1, 2, 2), RNG, IDS)
    assert len(seen) == sampler.evaluations() == calls


@EVERY_OBJECTIVE
def test_each_step_of_heun_is_that_of_diffusers(prediction_type):
    """Their sample is x_t / alpha_t, for which the network is asked as is, so x_t is handed to it here."""
    theirs = diffusers.HeunDiscreteScheduler(T, timestep_spacing="trailing", prediction_type="sample")
    times, x = exact(theirs, 18), start()
    net = denoiser(prediction_type)
    states = ours("heun", times, x, net)
    sample, number = x / PROCESS.schedule.alpha(times[0] + 1), 0
    theirs._step_index = 0
    for place, state in enumerate(states):
        ends = [times[place], times[place + 1]] if place + 1 < len(times) else [times[place]]
        for time in ends:
            x_t = sample * PROCESS.schedule.alpha(time + 1)
            predicted = net(x_t, time + 1, {}).x0
            sample = theirs.step(predicted, theirs.timesteps[number], sample).prev_sample
            number += 1
        assert_same(state.x_t / PROCESS.schedule.alpha(state.t), sample)


def their_pndm(prediction_type):
    """20 divides 1000."""
    theirs = diffusers.PNDMScheduler(T, prediction_type=prediction_type)
    theirs.set_timesteps(20)
    return theirs


def run_of_their_pndm(theirs, network, x):
    """Their x at the end of each step: three of four evaluations, then of one."""
    for number, time in enumerate(theirs.timesteps.tolist(), 1):
        x = theirs.step(network(x, torch.full((2,), int(time))), time, x).prev_sample
        if number in (4, 8) or number >= 12:
            yield x


def test_each_step_of_pndm_is_that_of_diffusers():
    """Started by Runge and Kutta. But for the last: it leads from time 1 to 0, and their weights are for 50 times."""
    theirs, x = their_pndm("epsilon"), start()
    states = ours("pndm", list(range(950, -1, -50)), x, denoiser("epsilon", clip=False))
    found = list(run_of_their_pndm(theirs, wave, x))
    assert len(found) == len(states) == 20
    for state, expected in zip(states[:-1], found[:-1], strict=True):
        assert_same(state.x_t, expected)
    assert len(theirs.timesteps) == 29 == made("pndm", PROCESS, 20).evaluations()


def test_pndm_of_a_velocity_network_is_exact_for_one_point_and_that_of_diffusers_is_not():
    """There eps is the same all the way, so the multistep rule has no error. They combine the velocities instead."""
    point, x = 0.3, start()
    schedule = PROCESS.schedule

    def velocity(x_t, time):
        alpha, sigma = schedule.alpha(int(time[0]) + 1), schedule.sigma(int(time[0]) + 1)
        return alpha * (x_t - alpha * point) / sigma - sigma * point

    times = list(range(950, -1, -50))
    net = NetworkDenoiser(velocity, V(schedule))
    eps = (x - schedule.alpha(951) * point) / schedule.sigma(951)
    theirs = list(run_of_their_pndm(their_pndm("v_prediction"), velocity, x))
    for state, other in zip(ours("pndm", times, x, net)[:-1], theirs[:-1], strict=True):
        exact = schedule.alpha(state.t) * point + schedule.sigma(state.t) * eps
        assert_same(state.x_t, exact)
        if state.t < 800:  # after the start
            assert (other - exact).abs().max() > 1e-4


def test_the_grid_of_edm_has_the_sigmas_of_diffusers():
    """Theirs are not rounded to the times of the model."""
    theirs = diffusers.HeunDiscreteScheduler(T, 1e-4, 0.02, use_karras_sigmas=True)
    theirs.set_timesteps(18)
    found = [PROCESS.schedule.snr(t) ** -0.5 for t in timestep_spacing.rho(T, 18, PROCESS.schedule, 7)[:-1]]
    expected = [theirs.sigmas[0].item(), *theirs.sigmas[1:-1:2].tolist()]
    np.testing.assert_allclose(found[:12], expected[:12], rtol=0.02)
    assert found[0] == pytest.approx(expected[0], rel=roundings(2))
    assert found[-1] == pytest.approx(expected[17], rel=1e-3)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("target", [ring(8, 0.75, 0.1), ring(8, 4.0, 0.1)], ids=["narrow", "wide"])
@pytest.mark.parametrize(
    "schedule", [linear(24, 1e-4, 0.02, rescale=True), cosine(24, 0.008, 0.999)], ids=["linear", "cosine"]
)
def test_on_a_ring_of_gaussians_the_published_forms_are_those_of_diffusers_and_the_default_is_no_worse(
    schedule, target, order
):
    """With the exact denoiser at 24 steps even in time. 3M without limits errs twice as much as the published form
    there, on the wide ring with linear betas 0.33 and 0.16; 2M errs 0.038 and the default 0.042."""
    process, net, ids = GaussianDiffusion(schedule), OracleDenoiser(target, schedule), torch.arange(64)
    x = process.prior(target.shape, Rng(0, "prior").at(0, ids)).double()
    betas = (1 - schedule.alpha_bar[1:] / schedule.alpha_bar[:-1]).numpy()
    theirs = diffusers.DPMSolverMultistepScheduler(
        24, trained_betas=betas, prediction_type="sample", solver_order=order, timestep_spacing="trailing", **LAST_SIGMA
    )
    theirs.set_timesteps(24)
    theirs.sigmas = torch.tensor([schedule.snr(t) ** -0.5 for t in range(24, 0, -1)] + [0.0], dtype=torch.float64)

    def end(name):
        sampler = made(name, process, None)
        sampler = dataclasses.replace(sampler, lower_order_below=15) if "published" in name else sampler
        *_, last = sampler.trajectory(net, x, RNG, ids)
        return last.x_t

    other = x
    for t in theirs.timesteps:
        other = theirs.step(net(other, int(t) + 1, {}).x0, t, other).prev_sample
    assert_same(end("dpm_solver" if order == 2 else "dpm_solver_3m_published"), other, 1e-9)
    exact = net(exact_flow(target, schedule, x, 24, 1), 1, {}).x0
    error = (end("dpm_solver_3m") - exact).square().mean().sqrt()
    assert error < 1.2 * (other - exact).square().mean().sqrt()
