"""Distances, and the weighted regression that joins process, times, weight and distance."""

import numpy as np
import pytest
import torch
from precision import assert_same
from torch import nn

from ddpm.base.rng import Rng
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.losses.error import Huber, mae, mse
from ddpm.diffusion.losses.simple import SimpleLoss
from ddpm.diffusion.losses.weight import MinSNR, signal_to_noise, uniform
from ddpm.diffusion.objective import X0, Eps, V
from ddpm.diffusion.schedules.base import NoiseSchedule
from ddpm.diffusion.time_sampler import Stratified, Uniform

T = 1000
ALPHA_BAR = np.r_[1, np.cumprod(1 - np.linspace(1e-4, 0.02, T))]
SCHEDULE = NoiseSchedule(torch.tensor(ALPHA_BAR))
PROCESS = GaussianDiffusion(SCHEDULE)
IDS = torch.arange(100, 132)
POSITIONS = torch.arange(32).flip(0)


class Guess(nn.Module):
    """A network that answers each objective with the same guess of x0, tanh(x_t) / 2, by formulas of its own."""

    def __init__(self, objective):
        super().__init__()
        self.objective = objective

    def forward(self, x, time):
        alpha_bar = torch.tensor(ALPHA_BAR[1:])[time].view(-1, 1, 1, 1)  # the network numbers its times from 0
        alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        x0 = x.double().tanh() / 2
        eps = (x.double() - alpha * x0) / sigma
        return {Eps: eps, X0: x0, V: alpha * eps - sigma * x0}[self.objective].to(x.dtype)


def images(num=32):
    return torch.rand(num, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double() * 2 - 1


def draws(ids=IDS, positions=POSITIONS, epoch=0):
    return Rng(0, "train").at(epoch, ids, positions)


def terms_of(objective, weight=uniform, distance=mse, timesteps=None):
    loss = SimpleLoss(PROCESS, timesteps or Uniform(), weight, distance)
    return loss(NetworkDenoiser(Guess(objective), objective(SCHEDULE)), images(), {}, draws())


def test_the_snr_weighted_loss_is_one_loss_whatever_the_network_predicts():
    eps, x0, v = (terms_of(objective, signal_to_noise) for objective in (Eps, X0, V))
    assert torch.equal(eps.t, x0.t)
    for other in (x0, v, terms_of(Eps, uniform)):
        assert_same(other.total, eps.total)


def test_the_loss_is_equation_14_for_each_sample_by_hand():
    terms = terms_of(Eps)
    x0, eps = images(), draws().normal("noise", (3, 8, 8)).double()
    alpha_bar = torch.tensor(ALPHA_BAR)[terms.t].view(-1, 1, 1, 1)
    x_t = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps
    guess = (x_t - alpha_bar.sqrt() * x_t.tanh() / 2) / (1 - alpha_bar).sqrt()
    expected = ((eps - guess) ** 2).mean(dim=(1, 2, 3))
    assert_same(terms.total, expected)


@pytest.mark.parametrize("objective", [Eps, X0, V])
def test_the_error_is_logged_without_the_weight_and_nothing_is_averaged(objective):
    terms = terms_of(objective, MinSNR(5))
    assert terms.total.shape == terms.t.shape == terms.parts["error"].shape == (32,)
    snr = torch.tensor(ALPHA_BAR / (1 - ALPHA_BAR + 1e-300))[terms.t]
    weight = {Eps: snr.clamp(max=5) / snr, X0: snr.clamp(max=5), V: snr.clamp(max=5) / (snr + 1)}[objective]
    assert_same(terms.total, weight * terms.parts["error"])


@pytest.mark.parametrize("timesteps", [Uniform(), Stratified()], ids=repr)
def test_the_loss_of_a_sample_does_not_depend_on_the_batch_that_it_is_in(timesteps):
    loss = SimpleLoss(PROCESS, timesteps, uniform, mse)
    denoiser = NetworkDenoiser(Guess(Eps), Eps(SCHEDULE))
    x0 = images()
    whole = loss(denoiser, x0, {}, draws())
    order = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    for part in order.split(7):
        terms = loss(denoiser, x0[part], {}, draws(IDS[part], POSITIONS[part]))
        assert torch.equal(terms.t, whole.t[part])
        assert_same(terms.total, whole.total[part])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_with_more_channels_than_the_loss_trains_is_refused(channels):
    """Two channels against one would broadcast to a loss that looks well."""

    class Twice(nn.Module):
        def forward(self, x, time):
            return torch.cat([x, x], dim=1)

    loss = SimpleLoss(PROCESS, Uniform(), uniform, mse)
    with pytest.raises(ValueError, match=f"out_channels must be {channels}, .*use loss=hybrid, got {2 * channels}"):
        loss(NetworkDenoiser(Twice(), Eps(SCHEDULE)), images()[:, :channels], {}, draws())


@pytest.mark.parametrize(
    "context", [torch.autocast("cpu", torch.bfloat16), torch.inference_mode()], ids=["bf16", "eval"]
)
def test_mixed_precision_and_inference_mode_change_nothing_around_the_network(context):
    loss = SimpleLoss(PROCESS, Uniform(), MinSNR(5), mse)
    denoiser = NetworkDenoiser(Guess(V), V(SCHEDULE))
    expected = loss(denoiser, images().float(), {}, draws()).total
    assert expected.dtype == torch.float32
    with context:
        assert torch.equal(loss(denoiser, images().float(), {}, draws()).total, expected)


def test_distances_are_means_over_all_but_the_first_dimension():
    output, target = torch.tensor([[[1.0, 3.0]], [[0.0, 0.5]]]), torch.tensor([[[0.0, 0.0]], [[0.0, 0.0]]])
    assert mse(output, target).tolist() == [5.0, 0.125]
    assert mae(output, target).tolist() == [2.0, 0.25]
    assert Huber(delta=1)(output, target).tolist() == [(0.5 + 2.5) / 2, 0.125 / 2]


def test_huber_is_half_the_square_with_a_large_delta_and_delta_times_the_absolute_with_a_small_one():
    output, target = images(), images().flip(0)
    assert_same(Huber(100)(output, target), mse(output, target) / 2)
    assert_same(Huber(1e-6)(output, target) / 1e-6, mae(output, target), 1e-6)  # less delta / 2 a pixel


def test_huber_refuses_a_delta_that_is_not_positive():
    with pytest.raises(ValueError, match="delta must be greater than 0, got 0"):
        Huber(delta=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("timesteps", [Uniform(), Stratified()], ids=repr)
def test_nothing_in_the_loss_waits_for_the_gpu(timesteps):
    loss = SimpleLoss(PROCESS, timesteps, MinSNR(5), mse)
    denoiser = NetworkDenoiser(nn.Identity(), V(SCHEDULE))
    denoiser.network.forward = lambda x, time: x
    x0, on_gpu = images().cuda(), draws(IDS.cuda(), POSITIONS.cuda())
    loss(denoiser, x0, {}, on_gpu)  # the first call copies the schedule's table
    try:
        torch.cuda.set_sync_debug_mode("error")
        total = loss(denoiser, x0, {}, on_gpu).total
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert total.isfinite().all()
