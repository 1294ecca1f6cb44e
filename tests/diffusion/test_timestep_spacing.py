"""Grids: exactly the steps that were asked for, from the start down to 0."""

import itertools
import math
import re

import diffusers
import numpy as np
import pytest
from every_sampler import GRIDS, SCHEDULES
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm.diffusion.samplers import timestep_spacing
from ddpm.diffusion.schedules.betas import linear

STARTS_AND_STEPS = st.integers(1, 2000).flatmap(lambda start: st.tuples(st.just(start), st.integers(1, start)))


@settings(deadline=None)
@given(st.data(), st.sampled_from(sorted(GRIDS)), st.sampled_from(sorted(SCHEDULES)))
def test_every_grid_has_just_so_many_steps_from_its_start_to_zero(data, name, schedule):
    T = data.draw(st.integers(1, 300))
    start = data.draw(st.integers(1, T))
    steps = data.draw(st.integers(1, start))
    times = GRIDS[name](start, steps, SCHEDULES[schedule](T))
    assert len(times) == steps + 1
    assert all(type(t) is int for t in times)
    assert (times[0], times[-1]) == (start, 0)
    assert all(a > b for a, b in itertools.pairwise(times))


@given(STARTS_AND_STEPS)
def test_uniform_times_are_within_half_a_time_of_even_spacing(start_and_steps):
    start, steps = start_and_steps
    for i, t in enumerate(reversed(timestep_spacing.uniform(start, steps))):
        assert abs(t - start * i / steps) <= 0.5


def test_thirty_steps_of_a_thousand_differ_in_length_by_one_at_most():
    """diffusers' linspace and trailing grids land elsewhere than their own step assumes when S does not divide T."""
    visited = timestep_spacing.uniform(1000, 30)
    assert {t - s for t, s in itertools.pairwise(visited)} == {33, 34}


def test_quadratic_times_are_the_squares_of_evenly_spaced_numbers():
    assert timestep_spacing.quadratic(800, 10) == [800, 648, 512, 392, 288, 200, 128, 72, 32, 8, 0]
    assert timestep_spacing.quadratic(10, 5) == [10, 6, 4, 2, 1, 0]


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("steps", [0, 11, 2.0, "5"])
def test_a_number_of_steps_that_no_grid_has_is_refused(name, steps):
    with pytest.raises(ValueError, match=re.escape(f"steps must be an integer in 1..10, got {steps!r}")):
        GRIDS[name](10, steps, SCHEDULES["cosine"](10))


def test_a_root_of_nothing_is_refused():
    with pytest.raises(ValueError, match="rho must be greater than 0"):
        timestep_spacing.rho(10, 5, SCHEDULES["cosine"](10), 0)


def test_the_grid_of_edm_is_even_in_the_root_of_the_noise():
    """Karras et al. 2022, eq. 5, on T = 100,000, where rounding to whole times is small."""
    schedule = linear(100_000, 1e-4, 0.02, rescale=True)
    times = timestep_spacing.rho(100_000, 18, schedule, 7)[:-1]
    ratio = [math.sqrt(1 / schedule.snr(t)) for t in times]
    i = np.arange(18)
    expected = (ratio[0] ** (1 / 7) + i / 17 * (ratio[-1] ** (1 / 7) - ratio[0] ** (1 / 7))) ** 7
    np.testing.assert_allclose(ratio, expected, rtol=1e-2)


def test_the_grid_of_log_snr_is_even_in_it():
    schedule = linear(100_000, 1e-4, 0.02, rescale=True)
    places = np.diff([schedule.half_log_snr(t) for t in timestep_spacing.log_snr(100_000, 20, schedule)[:-1]])
    even = (schedule.half_log_snr(1) - schedule.half_log_snr(100_000)) / 19
    np.testing.assert_allclose(places[:14], even, rtol=2e-3)  # the last times are below 100, where rounding shows


def test_trailing_times_are_those_of_diffusers():
    for steps in (7, 30, 50, 999):
        theirs = diffusers.DDIMScheduler(1000, timestep_spacing="trailing")
        theirs.set_timesteps(steps)
        assert timestep_spacing.trailing(1000, steps)[:-1] == [t + 1 for t in theirs.timesteps.tolist()]


def test_a_grid_of_ones_own_is_taken_as_it_is_and_from_any_start():
    schedule = linear(1000, 1e-4, 0.02, rescale=True)
    assert timestep_spacing.custom(1000, 1000, schedule, [1000, 600, 20]) == [1000, 600, 20, 0]
    assert timestep_spacing.custom(1000, 3, schedule, [600, 20]) == [1000, 600, 20, 0]
    assert timestep_spacing.custom(300, 1, schedule, [1000, 600, 20]) == [300, 20, 0]
    with pytest.raises(ValueError, match=r"timestep_spacing.times make 3 steps, so leave sampler.steps=50 out"):
        timestep_spacing.custom(1000, 50, schedule, [1000, 600, 20])
    with pytest.raises(ValueError, match="times must be falling, none twice"):
        timestep_spacing.custom(1000, 1000, schedule, [20, 600])
    with pytest.raises(ValueError, match=r"times must be an integer in 1\.\.1000, got 2000"):
        timestep_spacing.custom(1000, 1000, schedule, [2000, 600])
