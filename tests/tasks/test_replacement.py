"""Sampling with a known part of x0, on data whose ideal denoiser is known.

Data: two pixels, Gaussian and correlated. All steps are then linear, so mean and covariance of a run with any schedule
of times follow from a recursion, written out here in numpy; and the true distribution of one pixel given the other is
known too.
"""

import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from ddpm.base.rng import Rng
from ddpm.base.types import Prediction
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.samplers import timestep_spacing
from ddpm.diffusion.samplers.ancestral import Ancestral
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.samplers.replacement import (
    BlockMean,
    PixelProjection,
    channel_mean,
    independent,
    posterior,
    replace_known,
    replacement_trajectory,
    resampling_path,
)
from ddpm.diffusion.schedules.base import NoiseSchedule
from ddpm.diffusion.variance import FixedSmall

T = 1000
ALPHA_BAR = np.r_[1, np.cumprod(1 - np.linspace(1e-4, 0.02, T))]
PROCESS = GaussianDiffusion(NoiseSchedule(torch.tensor(ALPHA_BAR)))
RNG = Rng(0, "sample")
RHO, C = 0.8, 0.5
COVARIANCE = C**2 * np.array([[1, RHO], [RHO, 1]])
KNOWN = 1.2  # the first pixel
TRUE_MEAN, TRUE_VARIANCE = RHO * KNOWN, C**2 * (1 - RHO**2)
FIRST = PixelProjection(torch.tensor([[1.0, 0.0]]))


def gain(t):
    """Cov(x0, x_t) Var(x_t)^-1."""
    a = ALPHA_BAR[t]
    return np.sqrt(a) * COVARIANCE @ np.linalg.inv(a * COVARIANCE + (1 - a) * np.eye(2))


@dataclass
class Ideal:
    """E[x0 | x_t] of the two pixels, `[B, 1, 1, 2]`."""

    def __call__(self, x_t, t, cond):
        return Prediction(x_t @ torch.tensor(gain(t).T, dtype=x_t.dtype))


def sampler_of(kind, steps=None):
    if kind == "ddim":
        return DDIM(PROCESS, timestep_spacing.uniform, steps, 0.0)
    return Ancestral(PROCESS, timestep_spacing.uniform, steps, FixedSmall())


def exact(times, redraw):
    """Mean and variance of the second pixel at the end: RePaint, algorithm 1, with a jump for many small steps up."""
    t = times[0]
    mean, covariance = np.array([np.sqrt(ALPHA_BAR[t]) * KNOWN, 0]), np.diag([1 - ALPHA_BAR[t], 1])
    for t, s in itertools.pairwise(times):
        a_s, a_t = ALPHA_BAR[s], ALPHA_BAR[t]
        if s > t:
            mean = np.sqrt(a_s / a_t) * mean
            covariance = a_s / a_t * covariance + (1 - a_s / a_t) * np.eye(2)
            continue
        beta = 1 - a_t / a_s
        of_x0, of_x_t = np.sqrt(a_s) * beta / (1 - a_t), np.sqrt(1 - beta) * (1 - a_s) / (1 - a_t)
        step = of_x0 * gain(t) + of_x_t * np.eye(2)
        shared = of_x_t * (step @ covariance)[1, 0] if redraw is posterior else 0
        mean = step @ mean
        covariance = step @ covariance @ step.T + (1 - a_s) / (1 - a_t) * beta * np.eye(2)
        mean[0], covariance[0] = np.sqrt(a_s) * KNOWN, (1 - a_s, shared)
        covariance[1, 0] = shared
    return mean[1], covariance[1, 1]


def completions(times, redraw, num, kind="small"):
    """Both pixels of so many completions, float64 `[num, 2]`."""
    x0 = torch.tensor([KNOWN, 99.0], dtype=torch.float64).expand(num, 1, 1, 2)  # nothing may come of the 99
    run = replacement_trajectory(sampler_of(kind), Ideal(), x0, FIRST, redraw, times, RNG, torch.arange(num))
    *_, last = run
    assert last.t == 0
    return last.x_t.view(num, 2).numpy()


TIMES = timestep_spacing.uniform(T, 100)


@pytest.mark.parametrize(
    ("times", "redraw"),
    [
        (TIMES, independent),
        (TIMES, posterior),
        (resampling_path(TIMES, 10, 3), independent),
        (resampling_path(TIMES, 2, 4), independent),
    ],
)
def test_completions_have_the_mean_and_the_variance_that_theory_gives_for_the_algorithm(times, redraw):
    """n = 4096, four standard errors. Noise that is used twice on two visits to a time would show in the variance."""
    num = 4096
    mean, variance = exact(times, redraw)
    second = completions(times, redraw, num)[:, 1]
    assert abs(second.mean() - mean) < 4 * np.sqrt(variance / num)
    assert abs(second.var() - variance) < 4 * variance * np.sqrt(2 / num)


def test_resampling_brings_completions_near_to_the_true_distribution_given_the_known_pixel():
    """By the recursion: the mean is off by 0.38 without and by 0.06 as in the paper; n = 4096 of a cheaper schedule."""
    without, paper = (
        exact(times, independent) for times in (TIMES, resampling_path(timestep_spacing.uniform(T, 250), 10, 10))
    )
    assert abs(without[0] - TRUE_MEAN) > 0.35
    assert paper == pytest.approx((TRUE_MEAN, TRUE_VARIANCE), abs=0.06)
    second = completions(resampling_path(TIMES, 5, 5), independent, 4096)[:, 1]
    assert second.mean() == pytest.approx(TRUE_MEAN, abs=0.1 + 4 * np.sqrt(TRUE_VARIANCE / 4096))
    assert second.var() == pytest.approx(TRUE_VARIANCE, abs=0.02)


@pytest.mark.parametrize("kind", ["small", "ddim"])
@pytest.mark.parametrize("redraw", [independent, posterior])
def test_known_pixels_are_exact_with_any_sampler(kind, redraw):
    assert (completions(resampling_path(TIMES[-11:], 3, 2), redraw, 5, kind)[:, 0] == KNOWN).all()


def test_a_completion_is_bitwise_the_same_whatever_the_batch_it_is_made_in():
    times = resampling_path(timestep_spacing.uniform(T, 10), 2, 2)
    whole = completions(times, independent, 6)
    assert np.array_equal(completions(times, independent, 2), whole[:2])
    assert len(np.unique(whole[:, 1])) == 6


def test_a_time_that_is_visited_again_has_noise_of_its_own():
    times = resampling_path(timestep_spacing.uniform(T, 10), 3, 3)
    x0 = torch.tensor([KNOWN, 0.0]).view(1, 1, 1, 2)
    run = replacement_trajectory(sampler_of("small"), Ideal(), x0, FIRST, independent, times, RNG, torch.arange(1))
    seen = [(state.t, state.x_t[0, 0, 0, 0].item()) for state in run][:-1]
    assert len(set(seen)) == len(seen)
    assert max(Counter(t for t, _ in seen).values()) > 2


def algorithm_1(T, U):
    """The times of RePaint's algorithm 1 for jumps of one step: each step but the last is made U times."""
    path = [T]
    for t in range(T, 0, -1):
        for u in range(U):
            path.append(t - 1)
            if u < U - 1 and t > 1:
                path.append(t)
            if t == 1:
                break
    return path


@pytest.mark.parametrize(("T", "U"), [(2, 2), (5, 1), (5, 3), (20, 10)])
def test_resampling_by_one_step_visits_the_times_of_the_papers_algorithm(T, U):
    assert resampling_path(list(range(T, -1, -1)), 1, U) == algorithm_1(T, U)


def official(t_T, jump_length, jump_n_sample):
    """get_schedule_jump of the paper's code, as it is described in its appendix: times count from 0, -1 is clean."""
    jumps = dict.fromkeys(range(0, t_T - jump_length, jump_length), jump_n_sample - 1)
    t, ts = t_T, []
    while t >= 1:
        t -= 1
        ts.append(t)
        if jumps.get(t, 0) > 0:
            jumps[t] -= 1
            for _ in range(jump_length):
                t += 1
                ts.append(t)
    return [*ts, -1]


@pytest.mark.parametrize(("steps", "jump", "times"), [(250, 10, 10), (30, 7, 3), (9, 8, 2), (5, 1, 2)])
def test_resampling_by_many_steps_is_the_papers_schedule_with_each_way_up_in_one(steps, jump, times):
    small = [t + 1 for t in official(steps, jump, times)]
    on_the_way_up = {i for i in range(1, len(small) - 1) if small[i - 1] < small[i] < small[i + 1]}
    in_one = [t for i, t in enumerate(small) if i not in on_the_way_up]
    assert resampling_path(list(range(steps, -1, -1)), jump, times) == in_one


def test_resampling_once_is_the_plain_schedule():
    assert resampling_path([9, 5, 2, 0], 99, 1) == [9, 5, 2, 0]


@pytest.mark.parametrize(("jump", "times", "message"), [(3, 2, "jump_length must be"), (1, 0, "num_resamples must be")])
def test_a_resampling_that_cannot_be_is_refused(jump, times, message):
    with pytest.raises(ValueError, match=message):
        resampling_path([9, 5, 2, 0], jump, times)


IMAGES = torch.randn(4, 3, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
HALF = torch.ones(8, 12)
HALF[:, :6] = 0
PROJECTIONS = pytest.mark.parametrize(
    "projection", [PixelProjection(HALF), channel_mean, BlockMean(4)], ids=["pixels", "channel_mean", "block_mean"]
)


@PROJECTIONS
def test_a_known_part_is_an_orthogonal_projection(projection):
    one, other = IMAGES[:2], IMAGES[2:]
    assert torch.allclose(projection(projection(one)), projection(one), rtol=0, atol=1e-12)
    assert torch.allclose(projection(one - 3 * other), projection(one) - 3 * projection(other), rtol=0, atol=1e-12)
    assert (projection(one) * other).sum().item() == pytest.approx((one * projection(other)).sum().item(), rel=1e-12)


@PROJECTIONS
def test_what_replaces_a_part_changes_that_part_alone(projection):
    mixed = replace_known(IMAGES[:2], IMAGES[2:], projection)
    assert torch.allclose(projection(mixed), projection(IMAGES[2:]), rtol=0, atol=1e-12)
    rest, rest_before = mixed - projection(mixed), IMAGES[:2] - projection(IMAGES[:2])
    assert torch.allclose(rest, rest_before, rtol=0, atol=1e-12)


def test_block_means_are_the_means_of_blocks():
    means = IMAGES.numpy().reshape(4, 3, 2, 4, 3, 4).mean(axis=(3, 5))
    np.testing.assert_allclose(BlockMean(4)(IMAGES)[:, :, ::4, ::4], means, atol=1e-12)


@PROJECTIONS
@pytest.mark.parametrize("kind", ["small", "ddim"])
def test_any_sampler_keeps_the_known_part_of_images(projection, kind):
    def denoiser(x_t, t, cond):
        return Prediction(x_t * (1 - t / T) * 0.5)

    times = resampling_path(timestep_spacing.uniform(T, 8), 2, 2)
    *_, last = replacement_trajectory(
        sampler_of(kind), denoiser, IMAGES, projection, independent, times, RNG, torch.arange(4)
    )
    assert torch.allclose(projection(last.x_t), projection(IMAGES), rtol=0, atol=1e-12)
    assert (last.x_t - IMAGES).abs().max() > 0.1
