"""Which times a training step sees: each uniform in 1..T, and those of a stratified batch spread evenly."""

import math

import pytest
import torch
from scipy import stats

from ddpm.base.rng import Rng
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.losses.vlb import VLBLoss
from ddpm.diffusion.schedules.base import NoiseSchedule
from ddpm.diffusion.time_sampler import LogitNormal, Stratified, Uniform
from ddpm.diffusion.variance import FixedSmall


def draws(num, epoch=0, start=0):
    order = torch.arange(start, start + num)
    return Rng(0, "train").at(epoch, order * 7919 % 104729, order)  # ids in another order than positions


@pytest.mark.parametrize("timesteps", [Uniform(), Stratified()], ids=repr)
@pytest.mark.parametrize("T", [1, 2, 10, 1000])
def test_times_are_uniform_in_one_to_T(timesteps, T):
    t = timesteps(draws(50_000), T)
    assert t.dtype == torch.int64
    assert t.min() == 1
    assert t.max() == T
    if T > 1:
        assert stats.chisquare(torch.bincount(t - 1, minlength=T).numpy()).pvalue > 0.005


def test_the_time_of_one_position_is_uniform_over_the_epochs():
    counts = torch.zeros(5)
    for epoch in range(400):
        counts[Stratified()(draws(1, epoch, start=12345), 5) - 1] += 1
    assert 0.005 < stats.chisquare(counts.numpy()).pvalue < 0.995


@pytest.mark.parametrize("num", [2, 7, 64, 128, 1000])
def test_any_run_of_consecutive_samples_is_spread_evenly(num):
    """The golden ratio leaves no gap wider than 1.894 / n among n points on a circle (three-distance theorem)."""
    T = 10**6
    for start in (0, 1, 129, 50_000, 10**9):
        t = Stratified()(draws(num, start=start), T).sort().values
        gaps = torch.cat([t, t[:1] + T]).diff()
        assert gaps.max() <= 1.8945 * T / num + 1


def test_stratified_times_lower_the_variance_of_a_batch_mean():
    """500 batches of 64: uniform times have variance 1 / (12 x 64) of the mean of t / T; ours a tenth at most."""
    T, batches = 1000, 500

    def variance(timesteps, function):
        return function(timesteps(draws(64 * batches), T) / T).view(batches, 64).mean(1).var().item()

    uniform = variance(Uniform(), lambda u: u)
    assert uniform == pytest.approx(1 / (12 * 64), rel=4 * math.sqrt(2 / batches))
    assert variance(Stratified(), lambda u: u) < uniform / 10
    for steep in (lambda u: u**8, lambda u: (-10 * u).exp()):  # as losses are, near one end
        assert variance(Stratified(), steep) < variance(Uniform(), steep) / 10


@pytest.mark.parametrize("timesteps", [Uniform(), Stratified(), LogitNormal()], ids=repr)
def test_the_times_of_a_batch_are_the_same_however_it_is_split_over_processes(timesteps):
    ids, positions = torch.arange(64) * 31, torch.arange(64)
    whole = timesteps(Rng(0, "train").at(2, ids, positions), 1000)
    for rank in range(4):
        share = slice(rank, None, 4)
        assert torch.equal(timesteps(Rng(0, "train").at(2, ids[share], positions[share]), 1000), whole[share])


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.5)])
def test_the_logit_of_a_logit_normal_time_is_normal(mean, std):
    T = 10**6
    t = LogitNormal(mean, std)(draws(20_000), T)
    assert 1 <= t.min() <= t.max() <= T
    found = stats.kstest(torch.logit((t - 0.5) / T).numpy(), stats.norm(mean, std).cdf)
    assert found.statistic < 0.002  # spread evenly, so nearer than independent numbers are


def test_bounds_refuse_times_that_weight_them():
    schedule = NoiseSchedule(torch.tensor([1.0, 0.9, 0.5], dtype=torch.float64))
    with pytest.raises(ValueError, match="time_sampler=logit_normal weights the times, so loss=vlb is no bound"):
        VLBLoss(GaussianDiffusion(schedule), LogitNormal(), FixedSmall())


def test_stratified_times_differ_between_epochs():
    assert (Stratified()(draws(64, 0), 1000) != Stratified()(draws(64, 1), 1000)).any()


def test_stratified_times_need_the_positions_of_the_samples():
    with pytest.raises(
        ValueError, match="time_sampler=stratified and logit_normal need the samples' positions in the epoch"
    ):
        Stratified()(Rng(0, "train").at(0, torch.arange(4)), 10)
