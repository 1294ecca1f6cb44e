"""The times of other programs are theirs: by the program itself, or by its definition."""

import functools
import itertools
import math
import re

import diffusers
import numpy as np
import pytest
import torch
from every_sampler import PUBLISHED, made
from hypothesis import given, settings
from hypothesis import strategies as st
from precision import assert_same

from ddpm.base.rng import Rng
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.objective import Eps
from ddpm.diffusion.samplers import published_spacing as published
from ddpm.diffusion.schedules.betas import linear

SCHEDULE = linear(1000, 1e-4, 0.02, rescale=True)
STEPS = [1, 2, 7, 10, 30, 50, 333, 999]


def above(times):
    """Theirs count from 0, and stop where ours step to 0."""
    return [*(int(t) + 1 for t in times), 0]


@settings(deadline=None)
@given(st.data(), st.sampled_from(sorted(PUBLISHED)))
def test_all_fall_to_zero_and_begin_at_any_start_below_T(data, name):
    T = data.draw(st.integers(1, 300))
    start = data.draw(st.integers(1, T))
    steps = data.draw(st.integers(1, start))
    times = PUBLISHED[name](start, steps, linear(T, 1e-4, 0.02, rescale=False))
    assert all(type(t) is int for t in times)
    assert times[-1] == 0
    assert start == T or times[0] == start
    assert times[0] <= T
    assert all(a > b for a, b in itertools.pairwise(times))
    if name not in ("strided", "strided_1", "ddim_quadratic"):
        assert len(times) == steps + 1


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(
    "scheduler", [diffusers.DDPMScheduler, diffusers.DDIMScheduler, diffusers.HeunDiscreteScheduler]
)
def test_leading_and_linspace_are_those_of_diffusers(scheduler, steps):
    for offset in (0, 1):
        theirs = scheduler(1000, timestep_spacing="leading", steps_offset=offset)
        theirs.set_timesteps(steps)
        assert published.leading(1000, steps, SCHEDULE, offset) == above(dict.fromkeys(theirs.timesteps.tolist()))
    if scheduler is not diffusers.HeunDiscreteScheduler:  # it does not round them
        theirs = scheduler(1000, timestep_spacing="linspace")
        theirs.set_timesteps(steps)
        assert published.linspace(1000, steps, SCHEDULE) == above(theirs.timesteps)


@pytest.mark.parametrize("steps", STEPS[:-2])  # with more, theirs repeat times
@pytest.mark.parametrize(
    "scheduler",
    [diffusers.DPMSolverMultistepScheduler, diffusers.UniPCMultistepScheduler, diffusers.DEISMultistepScheduler],
)
def test_those_of_their_multistep_solvers_leave_out_the_last_of_one_more(scheduler, steps):
    for spacing in ("leading", "linspace"):
        theirs = scheduler(1000, timestep_spacing=spacing)
        theirs.set_timesteps(steps)
        assert published.without_last(1000, steps, SCHEDULE, getattr(published, spacing)) == above(theirs.timesteps)


@pytest.mark.parametrize("steps", STEPS)
def test_the_times_of_the_ddim_code(steps):
    """Song et al.'s runner: seq = range(0, T, T // S), or int(s) for s in linspace(0, sqrt(0.8 T), S) ** 2."""
    assert published.strided(1000, steps, SCHEDULE) == above(range(0, 1000, 1000 // steps)[::-1])
    squares = [int(s) for s in np.linspace(0, np.sqrt(1000 * 0.8), steps) ** 2]
    assert published.ddim_quadratic(1000, steps, SCHEDULE) == above(sorted(set(squares), reverse=True))
    if 1000 % steps == 0:
        assert published.leading(1000, steps, SCHEDULE) == published.strided(1000, steps, SCHEDULE)


def test_what_the_paper_and_latent_diffusion_list():
    """Ten quadratic times by hand; those of latent diffusion are one later."""
    quadratic = [0, 9, 39, 88, 158, 246, 355, 483, 632, 800]
    assert published.ddim_quadratic(1000, 10, SCHEDULE) == above(quadratic[::-1])
    assert published.ddim_quadratic(1000, 10, SCHEDULE, offset=1) == [t + 2 for t in quadratic[::-1]] + [0]
    assert published.strided(1000, 50, SCHEDULE, offset=1) == [*range(982, 1, -20), 0]
    assert len(published.strided(1000, 30, SCHEDULE)) - 1 == 31


@pytest.mark.parametrize("of", [published.leading, published.linspace, functools.partial(published.leading, offset=1)])
def test_times_that_end_at_1_are_the_others_with_another_end(of):
    """A step from 1 would lead nowhere, and is left out."""
    *times, _ = of(1000, 10, SCHEDULE)
    ending = published.ending_at_1(1000, 10, SCHEDULE, of)
    assert ending == (times if times[-1] == 1 else [*times, 1])
    with pytest.raises(ValueError, match="the only step ends where it begins, at t = 1; choose more steps"):
        published.ending_at_1(1, 1, SCHEDULE, of)


def openai_respacing(T, counts):
    """From the definition: sections of T // n, the first ones longer by one; each even, with both ends."""
    edges = np.cumsum([0, *(len(part) for part in np.array_split(range(T), len(counts)))])
    times = []
    for begin, end, count in zip(edges, edges[1:], counts, strict=False):
        times += [begin + round((end - begin - 1) * i / max(count - 1, 1)) for i in range(count)]
    return times


@pytest.mark.parametrize("counts", [[250], [10, 15, 20], [100, 1, 3, 7], [1], [334, 333, 333]])
def test_the_sections_of_openai(counts):
    times = published.respaced(1000, sum(counts), SCHEDULE, counts)
    assert times == above(openai_respacing(1000, counts)[::-1])
    if len(counts) == 1:
        assert times == published.respaced(1000, counts[0], SCHEDULE)


def test_ddim25_of_openai_and_a_stride_that_no_number_has():
    assert published.respaced(1000, 25, SCHEDULE, "ddim25") == [*range(961, 0, -40), 0]
    assert published.respaced(1000, 1000, SCHEDULE, "ddim31") == [*range(991, 0, -33), 0]
    assert published.respaced(500, 12, SCHEDULE, "ddim25") == [500, *range(481, 0, -40), 0]
    with pytest.raises(ValueError, match=re.escape("timestep_spacing.sections must be 'ddimN'")) as refusal:
        published.respaced(1000, 1000, SCHEDULE, "ddim99")
    assert "'ddim99'" in str(refusal.value)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ("25", "timestep_spacing.sections must be 'ddimN'"),
        ([], "timestep_spacing.sections must be"),
        ([10, 0], r"timestep_spacing.sections must be an integer in 1\.\.500, got 0"),
        ([501, 10], r"timestep_spacing.sections must be an integer in 1\.\.500, got 501"),
        ([10, 15], r"timestep_spacing.sections make 25 steps, so leave sampler.steps=50 out or null"),
    ],
)
def test_sections_that_cannot_be_are_named(sections, message):
    with pytest.raises(ValueError, match=message):
        published.respaced(1000, 50, SCHEDULE, sections)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("steps", [0, 1001, 2.0])
def test_a_number_of_steps_that_cannot_be_is_refused(name, steps):
    with pytest.raises(ValueError, match=re.escape(f"steps must be an integer in 1..1000, got {steps!r}")):
        PUBLISHED[name](1000, steps, SCHEDULE)


@pytest.mark.parametrize("name", ["ddim", "heun", "pndm", "unipc_3", "langevin", "dpm_solver_3m_published"])
@pytest.mark.parametrize("spacing", PUBLISHED)
def test_a_sampler_begins_at_the_first_time_and_counts_its_evaluations(name, spacing):
    process, calls = GaussianDiffusion(SCHEDULE), []

    def network(x, time):
        calls.append(int(time[0]) + 1)
        return (x + 0.01 * time.view(-1, 1, 1, 1)).sin()

    sampler = made(name, process, 12, PUBLISHED[spacing])
    sampler.sample(NetworkDenoiser(network, Eps(SCHEDULE)), (1, 2, 2), Rng(0, "sample"), torch.arange(2))
    assert calls[0] == PUBLISHED[spacing](1000, 12, SCHEDULE)[0]
    assert len(calls) == sampler.evaluations()


def test_samples_on_the_quadratic_times_are_those_of_the_ddim_code():
    """Its loop with the repeated times near 0, by eqs. 12 and 16 of Song et al. 2021, in float64."""
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    process = GaussianDiffusion(linear(1000, 1e-4, 0.02, rescale=True))
    x = process.prior((1, 2, 2), Rng(0, "prior").at(0, torch.arange(3))).double()

    def network(x, time):
        return (x + 0.01 * time.view(-1, 1, 1, 1)).sin()

    times = [int(s) for s in np.linspace(0, math.sqrt(800), 100) ** 2]
    assert len(set(times)) < 100
    theirs = x
    for i, j in zip(reversed(times), reversed([-1, *times[:-1]]), strict=True):
        at, to = alpha_bar[i], alpha_bar[j] if j >= 0 else 1.0
        eps = network(theirs, torch.full((3,), float(i)))
        x0 = (theirs - eps * (1 - at) ** 0.5) / at**0.5
        theirs = to**0.5 * x0 + (1 - to) ** 0.5 * eps
    sampler = made("ddim", process, 100, published.ddim_quadratic)
    *_, last = sampler.trajectory(NetworkDenoiser(network, Eps(process.schedule)), x, Rng(0, "s"), torch.arange(3))
    assert_same(last.x_t, theirs, 1e-9)
