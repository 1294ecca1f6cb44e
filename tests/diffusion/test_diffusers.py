"""Agreement with diffusers, a second program, wherever its numbers are right: one step and whole runs.

diffusers numbers times from 0, hence t - 1 there. Its tables are float32, which puts 1 - alpha_bar off by 3e-4 of its
value at the second step; here all of it is in float64, so that its formulas are what is compared.
"""

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers import scheduling_ddim, scheduling_ddpm
from precision import InDouble, assert_same

from ddpm.base.rng import Rng
from ddpm.diffusion.denoiser import NetworkDenoiser, StaticThresholding
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.objective import X0, Eps, V
from ddpm.diffusion.samplers import timestep_spacing
from ddpm.diffusion.samplers.ancestral import Ancestral
from ddpm.diffusion.samplers.base import State
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.schedules.betas import linear
from ddpm.diffusion.schedules.curves import cosine
from ddpm.diffusion.variance import FixedLarge, FixedSmall

T = 1000
OURS = {"linear": linear(T, 1e-4, 0.02, rescale=True), "squaredcos_cap_v2": cosine(T, 0.008, 0.999)}
OBJECTIVES = {"epsilon": Eps, "sample": X0, "v_prediction": V}
RNG, IDS = Rng(0, "sample"), torch.arange(2)
EVERY_OBJECTIVE = pytest.mark.parametrize("prediction_type", OBJECTIVES)
CLIPPED_OR_NOT = pytest.mark.parametrize("clip", [False, True], ids=["unclipped", "clipped"])


@pytest.fixture(autouse=True)
def their_tables_in_double(monkeypatch):
    for module in (scheduling_ddim, scheduling_ddpm):
        monkeypatch.setattr(module, "torch", InDouble())


def images(seed):
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed)).double()


def noise(s):
    return RNG.at(s, IDS).normal("step", (3, 4, 4)).double()


def denoiser_of(prediction_type, schedule, network, clip):
    denoiser = NetworkDenoiser(network, OBJECTIVES[prediction_type](schedule))
    return StaticThresholding(denoiser) if clip else denoiser


class Answer(torch.nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x, time):
        return self.output


class Wave(torch.nn.Module):
    """Any smooth function of x and the network's own time."""

    def forward(self, x, time):
        return (x + 0.01 * time.view(-1, 1, 1, 1)).sin()


@CLIPPED_OR_NOT
@EVERY_OBJECTIVE
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_a_step_of_the_ancestral_sampler_is_that_of_diffusers(monkeypatch, prediction_type, variance, clip):
    schedule = OURS["linear"]
    theirs = diffusers.DDPMScheduler(T, variance_type=variance, clip_sample=clip, prediction_type=prediction_type)
    variances = {"fixed_small": FixedSmall(), "fixed_large": FixedLarge()}
    sampler = Ancestral(GaussianDiffusion(schedule), timestep_spacing.uniform, None, variances[variance])
    output, x_t = images(0), images(1)
    denoiser = denoiser_of(prediction_type, schedule, Answer(output), clip)
    for t in (1, 2, 3, 100, 500, 999, 1000):
        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *args, t=t, **kwargs: noise(t - 1))
        expected = theirs.step(output, t - 1, x_t)
        state = sampler.step(denoiser, State(t, x_t), t - 1, {}, RNG.at(t - 1, IDS))
        assert_same(state.prediction.x0, expected.pred_original_sample)
        assert_same(state.x_t, expected.prev_sample)


@CLIPPED_OR_NOT
@EVERY_OBJECTIVE
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_step_of_ddim_is_that_of_diffusers(prediction_type, eta, clip):
    """With use_clipped_model_output, without which diffusers takes eps from before the clipping."""
    schedule = OURS["linear"]
    theirs = diffusers.DDIMScheduler(T, clip_sample=clip, prediction_type=prediction_type)
    theirs.set_timesteps(50)  # 50 divides 1000: steps of 20
    sampler = DDIM(GaussianDiffusion(schedule), timestep_spacing.uniform, 50, eta)
    output, x_t = images(0), images(1)
    denoiser = denoiser_of(prediction_type, schedule, Answer(output), clip)
    for t in (1, 21, 501, 981):
        s = max(0, t - 20)
        arguments = {"use_clipped_model_output": True, "variance_noise": noise(s)}
        expected = theirs.step(output, t - 1, x_t, eta=eta, **arguments)
        state = sampler.step(denoiser, State(t, x_t), s, {}, RNG.at(s, IDS))
        assert_same(state.x_t, expected.prev_sample)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_whole_run_of_ddim_is_that_of_diffusers(monkeypatch, eta):
    """50 steps over times 1, 21, ..., 981, as its default spacing has them, from 981."""
    theirs = diffusers.DDIMScheduler(T, clip_sample=True, prediction_type="epsilon")
    theirs.set_timesteps(50)

    def leading(start, num_steps, schedule):
        return [*range(start, 0, -20), 0]

    x = images(2)
    denoiser = denoiser_of("epsilon", OURS["linear"], Wave(), clip=True)
    sampler = DDIM(GaussianDiffusion(OURS["linear"]), leading, None, eta)
    *_, last = sampler.trajectory(denoiser, x, RNG, IDS, start=981)
    for time in theirs.timesteps.tolist():
        s = max(0, time + 1 - 20)
        monkeypatch.setattr(scheduling_ddim, "randn_tensor", lambda *args, s=s, **kwargs: noise(s))
        output = Wave()(x, torch.full((2,), time))
        x = theirs.step(output, time, x, eta=eta, use_clipped_model_output=True).prev_sample
    assert_same(last.x_t, x)


def test_noising_and_the_velocity_target_are_those_of_diffusers():
    theirs = diffusers.DDPMScheduler(T)
    process = GaussianDiffusion(OURS["linear"])
    x0, eps, t = images(0), images(1), torch.tensor([1, 700])
    assert_same(process.apply(x0, eps, t), theirs.add_noise(x0, eps, t - 1))
    assert_same(V(OURS["linear"]).target(x0, eps, t), theirs.get_velocity(x0, eps, t - 1))


@pytest.mark.parametrize(("spacing", "wrong"), [("linspace", 29), ("trailing", 10)])
def test_a_step_lands_where_the_next_begins_which_it_does_not_in_diffusers(spacing, wrong):
    """30 steps of 1000: its step from t assumes to land on t - 1000 // 30, whatever time it visits next."""
    theirs = diffusers.DDIMScheduler(T, timestep_spacing=spacing)
    theirs.set_timesteps(30)
    visited = theirs.timesteps.numpy()
    assert (visited[:-1] - T // 30 != visited[1:]).sum() == wrong
    asked, process = [], GaussianDiffusion(OURS["linear"])

    def one_point(x_t, t, cond):
        asked.append((t, x_t))
        return NetworkDenoiser(Answer(torch.zeros_like(x_t)), X0(OURS["linear"]))(x_t, t, cond)

    x_T = process.prior((1, 2, 2), RNG.at(T, IDS)).double()
    list(DDIM(process, timestep_spacing.uniform, 30, 0).trajectory(one_point, x_T, RNG, IDS))
    for t, x_t in asked:  # data of one point at 0: DDIM keeps x_t / sigma_t, if it lands where it says
        expected = asked[0][1] / np.sqrt(1 - OURS["linear"].alpha_bar[T].item()) * process.schedule.sigma(t)
        assert_same(x_t, expected)
