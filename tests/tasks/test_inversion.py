"""Up the flow and down again, on Gaussian data, and the two ways between two images."""

import math

import numpy as np
import pytest
import torch
from precision import assert_same

from ddpm.base.rng import Rng
from ddpm.base.types import Prediction
from ddpm.diffusion.exact.inversion import draws_noise, invert
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.interpolation import linear, spherical
from ddpm.diffusion.samplers import timestep_spacing
from ddpm.diffusion.samplers.ancestral import Ancestral
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.schedules.base import NoiseSchedule, time_of_snr
from ddpm.diffusion.variance import FixedLarge, FixedSmall, LearnedRange

T = 1000
ALPHA_BAR = np.r_[1, np.cumprod(1 - np.linspace(1e-4, 0.02, T))]
PROCESS = GaussianDiffusion(NoiseSchedule(torch.tensor(ALPHA_BAR)))
C = 0.5


def ideal(x_t, t, cond):
    """E[x0 | x_t] for data N(0, C^2)."""
    a = ALPHA_BAR[t]
    return Prediction(x_t * np.sqrt(a) * C**2 / (a * C**2 + 1 - a))


X0 = torch.linspace(-1, 1, 8, dtype=torch.float64).view(2, 1, 2, 2)
IDS = torch.arange(2)


def both_ways(steps):
    """x_T and the reconstruction of X0."""
    ddim = DDIM(PROCESS, timestep_spacing.uniform, steps, 0.0)
    x_T = invert(PROCESS, ideal, X0, ddim.times(T)[::-1])
    *_, last = ddim.trajectory(ideal, x_T, Rng(0, "sample"), IDS)
    return x_T, last.x_t


def test_inversion_approaches_the_exact_flow_which_scales_gaussian_data_to_their_width_at_T():
    exact = X0 / C * math.sqrt(ALPHA_BAR[T] * C**2 + 1 - ALPHA_BAR[T])
    errors = [(both_ways(steps)[0] - exact).abs().max() for steps in (10, 40, 160, 640)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.03


def test_the_error_of_the_way_back_is_of_first_order_in_the_step():
    steps = [25, 50, 100, 200]
    errors = [(both_ways(num)[1] - X0).abs().max().item() for num in steps]
    order = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order == pytest.approx(1, abs=0.3)
    assert errors[-1] < 0.03


def test_a_point_is_inverted_without_error_in_any_number_of_steps():
    """Where the denoiser knows x0, eps is the same at every point, so the flow is straight."""

    def knows(x_t, t, cond):
        return Prediction(X0)

    for steps in (1, 7, 100):
        times = timestep_spacing.uniform(T, steps)[::-1]
        x_T = invert(PROCESS, knows, X0, times)
        eps = PROCESS.recover_noise(X0, X0, 1)  # of x0 shown as if it were x_1
        assert torch.allclose(x_T, PROCESS.apply(X0, eps, T), rtol=0, atol=1e-10)


def test_inversion_never_shows_the_denoiser_time_0():
    asked = []

    def denoiser(x_t, t, cond):
        asked.append(t)
        return ideal(x_t, t, cond)

    invert(PROCESS, denoiser, X0, [0, 250, 1000])
    assert asked == [1, 250]


@pytest.mark.parametrize(
    ("sampler", "noise"),
    [
        (DDIM(PROCESS, timestep_spacing.uniform, 10, 0.0), False),
        (DDIM(PROCESS, timestep_spacing.uniform, 10, 0.1), True),
        (Ancestral(PROCESS, timestep_spacing.uniform, 10, FixedSmall()), True),
        (Ancestral(PROCESS, timestep_spacing.uniform, 10, LearnedRange()), True),
        (Ancestral(PROCESS, timestep_spacing.uniform, 1, FixedLarge()), False),
    ],
)
def test_it_is_known_which_samplers_draw_noise(sampler, noise):
    """A single ancestral step goes to 0, where none is drawn."""
    assert draws_noise(sampler) == noise


def test_a_great_circle_keeps_the_length_and_goes_at_an_even_pace():
    """x and y orthogonal: cos and sin of the angle. A straight line would be at 0.71 of the length in its middle."""
    x, y = torch.zeros(2, 1, 2, 2, dtype=torch.float64)
    x[0, 0, 0], y[0, 1, 1] = 3, 3
    weights = torch.linspace(0, 1, 7)
    path = along(x, y, weights)
    angles = weights.double() * math.pi / 2
    expected = angles.cos().view(-1, 1, 1, 1) * x + angles.sin().view(-1, 1, 1, 1) * y
    assert_same(path, expected)
    assert linear(x, y, weights)[3].norm() == pytest.approx(3 / math.sqrt(2), rel=1e-12)


def along(x, y, weights):
    """A great circle from one x to one y."""
    return spherical(*(each.expand(len(weights), *each.shape) for each in (x, y)), weights)


@pytest.mark.parametrize("path", [linear, along])
def test_both_ways_begin_and_end_at_the_two_images(path):
    x, y = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    ends = path(x, y, torch.tensor([0.0, 1.0]))
    assert_same(ends, torch.stack([x, y]))
    assert torch.isfinite(path(x, x, torch.tensor([0.3]))).all()
    assert_same(path(x, x, torch.tensor([0.3]))[0], x)


@pytest.mark.parametrize("snr", [1e-9, 0.01, 1.0, 7.0, 1e9])
def test_no_other_time_is_nearer_to_a_noise_level(snr):
    t = time_of_snr(PROCESS.schedule, snr)
    distance = np.abs(np.log(ALPHA_BAR[1:] / (1 - ALPHA_BAR[1:])) - np.log(snr))
    assert distance[t - 1] == pytest.approx(distance.min())
    assert {1e-9: T, 1e9: 1}.get(snr, t) == t
