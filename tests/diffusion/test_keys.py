"""No two numbers that training or sampling draws come from one block of random bits."""

from collections import Counter

import pytest
import torch
from torch import nn

import ddpm.base.rng
from ddpm.base.rng import Rng
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.losses.error import mse
from ddpm.diffusion.losses.simple import SimpleLoss
from ddpm.diffusion.losses.weight import uniform
from ddpm.diffusion.objective import Eps
from ddpm.diffusion.samplers import timestep_spacing
from ddpm.diffusion.samplers.ancestral import Ancestral
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.schedules.betas import linear
from ddpm.diffusion.time_sampler import Stratified, Uniform
from ddpm.diffusion.variance import FixedLarge

T = 30
SCHEDULE = linear(T, 1e-4, 0.02, rescale=True)
PROCESS = GaussianDiffusion(SCHEDULE)
SHAPE = (1, 3, 3)


class Half(nn.Module):
    def forward(self, x, time):
        return x / 2


DENOISER = NetworkDenoiser(Half(), Eps(SCHEDULE))


@pytest.fixture
def used(monkeypatch):
    """Counts each block of bits that is made: the four words of its counter and the two of its key."""
    counted = Counter()
    philox = ddpm.base.rng.philox

    def spy(counter, key):
        words = torch.broadcast_tensors(*(torch.as_tensor(word) for word in (*counter, *key)))
        counted.update(map(tuple, torch.stack([word.flatten() for word in words], dim=1).tolist()))
        return philox(counter, key)

    monkeypatch.setattr(ddpm.base.rng, "philox", spy)
    return counted


def train(timesteps, epochs, seed=0):
    loss = SimpleLoss(PROCESS, timesteps, uniform, mse)
    positions = torch.arange(8)
    for epoch in range(epochs):
        ids = torch.randperm(8, generator=torch.Generator().manual_seed(epoch))
        loss(DENOISER, torch.zeros(8, *SHAPE), {}, Rng(seed, "train").at(epoch, ids, positions))


@pytest.mark.parametrize("timesteps", [Uniform(), Stratified()], ids=repr)
def test_no_two_draws_share_a_key_in_training(used, timesteps):
    train(timesteps, epochs=3)
    assert set(used.values()) == {1}
    blocks_of_noise, blocks_of_times = 8 * 3, 8 if timesteps == Uniform() else 1
    assert used.total() == 3 * (blocks_of_noise + blocks_of_times)


@pytest.mark.parametrize(
    "sampler",
    [
        Ancestral(PROCESS, timestep_spacing.uniform, None, FixedLarge()),
        DDIM(PROCESS, timestep_spacing.quadratic, 10, 1.0),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_no_two_draws_share_a_key_in_a_whole_sampling_run(used, sampler):
    for ids in torch.arange(8).split(3):
        sampler.sample(DENOISER, SHAPE, Rng(0, "sample"), ids)
    assert set(used.values()) == {1}
    assert used.total() == 8 * 3 * len(sampler.times(T)[:-1])  # the prior, and a noise for each step but the last


def test_training_sampling_and_another_seed_share_no_key(used):
    train(Uniform(), epochs=T)
    train(Uniform(), epochs=T, seed=1)
    Ancestral(PROCESS, timestep_spacing.uniform, None, FixedLarge()).sample(
        DENOISER, SHAPE, Rng(0, "sample"), torch.arange(8)
    )
    assert set(used.values()) == {1}


def test_a_deterministic_sampler_draws_the_prior_alone(used):
    DDIM(PROCESS, timestep_spacing.uniform, None, 0).sample(DENOISER, SHAPE, Rng(0, "sample"), torch.arange(8))
    assert used.total() == 8 * 3
