"""NoiseSchedule: what follows from alpha_bar, for int times and for times of a batch, and what is refused."""

import copy
import math
import re

import numpy as np
import pytest
import torch

from ddpm.diffusion.schedules.base import NoiseSchedule, from_alpha_bar, from_betas

TABLE = [1.0, 0.9, 0.5, 0.2, 0.01]
TIMES = [1, 2, 3, 4]


@pytest.fixture
def schedule():
    return NoiseSchedule(torch.tensor(TABLE, dtype=torch.float64))


def test_alpha_sigma_and_snr_follow_from_alpha_bar(schedule):
    assert schedule.T == 4
    for t in TIMES:
        assert schedule.alpha(t) == pytest.approx(math.sqrt(TABLE[t]), rel=1e-15)
        assert schedule.sigma(t) == pytest.approx(math.sqrt(1 - TABLE[t]), rel=1e-15)
        assert schedule.snr(t) == pytest.approx(TABLE[t] / (1 - TABLE[t]), rel=1e-15)


def test_time_zero_is_clean(schedule):
    assert schedule.alpha(0) == 1
    assert schedule.sigma(0) == 0
    assert schedule.posterior_variance(0, 3) == 0


def test_signal_survives_two_steps_as_the_product_of_both(schedule):
    for r, s, t in [(0, 1, 2), (0, 2, 4), (1, 3, 4)]:
        both = (1 - schedule.beta(r, s)) * (1 - schedule.beta(s, t))
        assert 1 - schedule.beta(r, t) == pytest.approx(both, rel=1e-14)


def test_a_small_beta_keeps_its_digits():
    betas = torch.full((4,), 1e-6, dtype=torch.float64)
    assert from_betas(betas).beta(2, 3) == pytest.approx(1e-6, rel=1e-9)


def test_int_times_and_times_of_a_batch_agree_and_the_latter_are_float64(schedule):
    t, s = torch.tensor(TIMES), torch.tensor([0, 0, 1, 3])
    for quantity in (schedule.alpha, schedule.sigma, schedule.snr):
        of_batch = quantity(t)
        assert of_batch.dtype == torch.float64
        assert of_batch.tolist() == pytest.approx([quantity(i) for i in TIMES], rel=1e-15)
    for quantity in (schedule.beta, schedule.posterior_variance):
        of_batch = quantity(s, t)
        assert of_batch.dtype == torch.float64
        each = [quantity(i, j) for i, j in zip(s.tolist(), TIMES, strict=True)]
        assert of_batch.tolist() == pytest.approx(each, rel=1e-14, abs=1e-300)


def test_an_int_time_gives_a_python_float_which_no_device_is_asked_for(schedule):
    for quantity in (schedule.alpha(2), schedule.sigma(2), schedule.snr(2), schedule.beta(1, 2)):
        assert type(quantity) is float


def test_a_schedule_can_be_copied(schedule):
    schedule.alpha(torch.tensor([1]))
    assert torch.equal(copy.deepcopy(schedule).alpha_bar, schedule.alpha_bar)


def test_a_negative_time_is_not_taken_for_one_counted_from_the_end(schedule):
    with pytest.raises(AssertionError):
        schedule.alpha(-1)
    with pytest.raises(IndexError):
        schedule.alpha(5)


@pytest.mark.parametrize(
    "table",
    [[0.9, 0.5], [1.0, 0.5, 0.5], [1.0, 0.5, 0.6], [1.0, 0.5, -0.1], [1.0, math.nan, 0.1], [1.0], [[1.0, 0.5]]],
    ids=["not 1 at 0", "flat", "rising", "negative", "nan", "no step", "two dimensions"],
)
def test_a_table_that_is_not_one_is_refused(table):
    with pytest.raises(ValueError, match="alpha_bar must be"):
        NoiseSchedule(torch.tensor(table, dtype=torch.float64))


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ([1.0, 0.5, 0.5], "got 0.5 and then 0.5 at t = 2; take larger betas or fewer num_timesteps"),
        ([1.0, 0.5, 0.6], "got 0.5 and then 0.6 at t = 2; take larger betas or fewer num_timesteps"),
        ([1.0, 0.0, 0.0], "got 0 at t = 1 already; take smaller betas or fewer num_timesteps"),
        ([0.9, 0.5, 0.2], "got 0.9 at time 0; put a 1 before the first step"),
    ],
)
def test_a_table_that_is_refused_is_told_where_it_fails_and_what_to_do(table, fault):
    with pytest.raises(ValueError, match=re.escape(fault)):
        NoiseSchedule(torch.tensor(table, dtype=torch.float64))


@pytest.mark.parametrize(("beta", "remedy"), [(0.0, "take a gentler curve"), (1.5, "take smaller betas or more")])
def test_betas_that_are_refused_are_told_where_they_fail_and_what_to_do(beta, remedy):
    with pytest.raises(ValueError, match=re.escape(f"got {beta:g} at t = 2; {remedy}")):
        from_betas(torch.tensor([0.1, beta, 0.2], dtype=torch.float64))


def test_a_float32_table_is_refused_since_its_differences_would_be_lost():
    with pytest.raises(ValueError, match="alpha_bar must be float64"):
        NoiseSchedule(torch.tensor(TABLE, dtype=torch.float32))


@pytest.mark.parametrize("beta", [0.0, -0.1, 1.1, math.nan])
def test_betas_outside_of_their_range_are_refused(beta):
    with pytest.raises(ValueError, match=re.escape("betas must be in (0, 1]")):
        from_betas(torch.tensor([0.1, beta], dtype=torch.float64))


def test_betas_and_alpha_bar_are_two_forms_of_one_schedule():
    betas = np.array([0.1, 0.4, 0.9])
    table = from_betas(torch.tensor(betas)).alpha_bar
    assert table.tolist() == pytest.approx([1, 0.9, 0.54, 0.054], rel=1e-14)
    assert torch.allclose(from_alpha_bar(table, max_beta=1).alpha_bar, table, rtol=1e-14, atol=0)


def test_a_curve_that_ends_at_zero_keeps_some_signal_where_beta_is_clipped():
    curve = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    assert from_alpha_bar(curve, max_beta=0.999).alpha_bar.tolist() == pytest.approx([1, 0.5, 0.0005], rel=1e-12)
    assert from_alpha_bar(curve, max_beta=1).alpha_bar.tolist() == [1, 0.5, 0]
