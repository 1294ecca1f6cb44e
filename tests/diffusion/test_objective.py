"""eps, x0 and v are three coordinates of one prediction."""

import numpy as np
import pytest
import torch

from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.objective import X0, Eps, V
from ddpm.diffusion.schedules.base import NoiseSchedule

ALPHA_BAR = np.array([1, 0.9999, 0.9, 0.5, 0.1, 1e-4])
SCHEDULE = NoiseSchedule(torch.tensor(ALPHA_BAR))
PROCESS = GaussianDiffusion(SCHEDULE)
OBJECTIVES = [Eps(SCHEDULE), X0(SCHEDULE), V(SCHEDULE)]
TIMES = torch.arange(1, 6)


def images(seed):
    return torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X_ZERO, EPS, X_ZERO_HAT = images(0), images(1), images(2)
X_T = PROCESS.apply(X_ZERO, EPS, TIMES)
EPS_HAT = PROCESS.recover_noise(X_T, X_ZERO_HAT, TIMES)
NAMES = {"ids": lambda objective: type(objective).__name__}


def norms(x):
    return x.flatten(1).square().sum(1)


@pytest.mark.parametrize("objective", OBJECTIVES, **NAMES)
def test_the_target_of_a_sample_stands_for_that_sample(objective):
    target = objective.target(X_ZERO, EPS, TIMES)
    assert torch.allclose(objective.to_x0(target, X_T, TIMES), X_ZERO, rtol=0, atol=1e-10)
    for t in TIMES.tolist():  # an int time
        one = slice(t - 1, t)
        target = objective.target(X_ZERO[one], EPS[one], t)
        assert torch.allclose(objective.to_x0(target, X_T[one], t), X_ZERO[one], rtol=0, atol=1e-10)


@pytest.mark.parametrize("there", OBJECTIVES, **NAMES)
@pytest.mark.parametrize("here", OBJECTIVES, **NAMES)
def test_an_output_survives_the_way_to_any_other_objective_and_back(here, there):
    output = images(3)
    x0 = here.to_x0(output, X_T, TIMES)
    translated = there.target(x0, PROCESS.recover_noise(X_T, x0, TIMES), TIMES)
    x0_again = there.to_x0(translated, X_T, TIMES)
    again = here.target(x0_again, PROCESS.recover_noise(X_T, x0_again, TIMES), TIMES)
    assert torch.allclose(again, output, rtol=1e-9, atol=1e-9)


def test_v_is_the_velocity_on_the_circle_of_signal_and_noise():
    """x_t = cos(phi) x0 + sin(phi) eps; v is its derivative with respect to phi (Salimans and Ho 2022)."""
    phi = torch.tensor(np.arccos(np.sqrt(ALPHA_BAR[1:]))).view(-1, 1, 1, 1)
    h = 1e-6
    ahead, behind = ((phi + d).cos() * X_ZERO + (phi + d).sin() * EPS for d in (h, -h))
    assert torch.allclose(V(SCHEDULE).target(X_ZERO, EPS, TIMES), (ahead - behind) / (2 * h), rtol=0, atol=1e-8)


def test_errors_of_the_three_objectives_differ_by_the_signal_to_noise_ratio():
    snr = torch.tensor(ALPHA_BAR[1:] / (1 - ALPHA_BAR[1:]))
    eps_error = norms(EPS - EPS_HAT)
    v = V(SCHEDULE)
    v_error = norms(v.target(X_ZERO, EPS, TIMES) - v.target(X_ZERO_HAT, EPS_HAT, TIMES))
    assert torch.allclose(eps_error, snr * norms(X_ZERO - X_ZERO_HAT), rtol=1e-9)
    assert torch.allclose(eps_error, snr / (snr + 1) * v_error, rtol=1e-9)


@pytest.mark.parametrize("objective", OBJECTIVES, **NAMES)
def test_x0_error_translates_the_error_of_the_output_into_that_of_x0(objective):
    snr = torch.tensor(ALPHA_BAR[1:] / (1 - ALPHA_BAR[1:]))
    error = norms(objective.target(X_ZERO, EPS, TIMES) - objective.target(X_ZERO_HAT, EPS_HAT, TIMES))
    assert torch.allclose(objective.x0_error(snr) * error, norms(X_ZERO - X_ZERO_HAT), rtol=1e-9)


def test_eps_is_refused_where_the_schedule_ends_without_signal_and_x0_and_v_are_not():
    no_signal = NoiseSchedule(torch.tensor([1, 0.5, 0], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"objective=eps cannot be used.*use objective=v or objective=x0"):
        Eps(no_signal)
    x0, eps = X_ZERO[:1], EPS[:1]
    for objective in (X0(no_signal), V(no_signal)):
        x_t = GaussianDiffusion(no_signal).apply(x0, eps, 2)
        assert torch.allclose(objective.to_x0(objective.target(x0, eps, 2), x_t, 2), x0, rtol=1e-12)
