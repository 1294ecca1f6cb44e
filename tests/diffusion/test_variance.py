"""The two fixed variances of the reverse step, each right for one kind of data (Ho et al. 2020, section 3.2)."""

import numpy as np
import pytest
import torch

from ddpm.base.types import Prediction
from ddpm.diffusion.schedules.base import NoiseSchedule
from ddpm.diffusion.variance import FixedLarge, FixedSmall, PublishedFixedLarge

BETA = np.linspace(1e-4, 0.02, 1000)
ALPHA_BAR = np.r_[1, np.cumprod(1 - BETA)]
SCHEDULE = NoiseSchedule(torch.tensor(ALPHA_BAR))
PREDICTION = Prediction(torch.zeros(1, 1, 1, 1))
PAIRS = [(1, 2), (499, 500), (999, 1000), (1, 1000), (100, 700)]


def true_variance(s, t, c):
    """Var(x_s | x_t) for data N(mu, c^2), by Gaussian conditioning of (x_s, x_t)."""
    var_s, var_t = (ALPHA_BAR[time] * c**2 + 1 - ALPHA_BAR[time] for time in (s, t))
    covariance = np.sqrt(ALPHA_BAR[t] / ALPHA_BAR[s]) * var_s
    return var_s - covariance**2 / var_t


@pytest.mark.parametrize(("s", "t"), PAIRS)
def test_the_small_variance_is_right_for_data_of_one_point(s, t):
    assert FixedSmall()(SCHEDULE, PREDICTION, s, t) == pytest.approx(true_variance(s, t, c=0), rel=1e-9)


@pytest.mark.parametrize(("s", "t"), PAIRS)
def test_the_large_variance_is_right_for_standard_normal_data(s, t):
    assert FixedLarge()(SCHEDULE, PREDICTION, s, t) == pytest.approx(true_variance(s, t, c=1), rel=1e-9)


def test_times_of_a_batch_give_one_variance_each():
    s, t = (torch.tensor(times) for times in zip(*PAIRS, strict=True))
    for variance in (FixedSmall(), FixedLarge()):
        each = [variance(SCHEDULE, PREDICTION, *pair) for pair in PAIRS]
        assert variance(SCHEDULE, PREDICTION, s, t).tolist() == pytest.approx(each, rel=1e-12)


def test_the_published_large_variance_is_that_of_the_code_of_ho():
    """models/diffusion_utils_2.py: fixedlarge has np.append(posterior_variance[1], betas[1:])."""
    posterior = BETA * (1 - ALPHA_BAR[:-1]) / (1 - ALPHA_BAR[1:])
    theirs = np.append(posterior[1], BETA[1:])
    t = torch.arange(1, 1001)
    assert PublishedFixedLarge()(SCHEDULE, PREDICTION, t - 1, t).numpy() == pytest.approx(theirs, rel=1e-9)
    each = [PublishedFixedLarge()(SCHEDULE, PREDICTION, int(time) - 1, int(time)) for time in t]
    assert each == pytest.approx(theirs, rel=1e-9)
    assert FixedLarge()(SCHEDULE, PREDICTION, 0, 1) > 1.8 * theirs[0]
