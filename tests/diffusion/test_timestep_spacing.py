"""Grids: exactly the steps that were asked for, from the start down to 0."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm.diffusion import timestep_spacing

GRIDS = pytest.mark.parametrize(
    "times", [timestep_spacing.uniform, timestep_spacing.quadratic], ids=["uniform", "quadratic"]
)
STARTS_AND_STEPS = st.integers(1, 2000).flatmap(lambda start: st.tuples(st.just(start), st.integers(1, start)))


@GRIDS
@given(STARTS_AND_STEPS)
def test_any_number_of_steps_up_to_the_start_falls_strictly_from_the_start_to_zero(times, start_and_steps):
    start, steps = start_and_steps
    visited = times(start, steps)
    assert len(visited) == steps + 1
    assert (visited[0], visited[-1]) == (start, 0)
    assert all(type(t) is int for t in visited)
    assert all(t > s for t, s in itertools.pairwise(visited))


@GRIDS
@pytest.mark.parametrize("start", [1, 2, 17, 1000])
def test_as_many_steps_as_times_visit_every_time(times, start):
    assert times(start, start) == list(range(start, -1, -1))


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


def test_quadratic_times_are_dense_near_the_clean_end():
    visited = timestep_spacing.quadratic(1000, 20)
    gaps = [t - s for t, s in itertools.pairwise(visited)]
    assert gaps == sorted(gaps, reverse=True)


@GRIDS
@pytest.mark.parametrize("steps", [0, 11, 2.0, "5"])
def test_a_number_of_steps_that_no_grid_has_is_refused(times, steps):
    with pytest.raises(ValueError, match=re.escape(f"steps must be an integer in 1..10, got {steps!r}")):
        times(10, steps)
