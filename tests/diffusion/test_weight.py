"""Loss weights against the published tables."""

import pytest
import torch

from ddpm.diffusion.losses.weight import P2, MinSNR, signal_to_noise, uniform
from ddpm.diffusion.objective import X0, Eps, V
from ddpm.diffusion.schedules.base import NoiseSchedule, Steps

SNR = torch.tensor([1e4, 10, 5, 1, 0.01], dtype=torch.float64)
SCHEDULE = NoiseSchedule(torch.cat([torch.ones(1, dtype=torch.float64), SNR / (1 + SNR)]))
TIMES = torch.arange(1, 6)
OBJECTIVES = [Eps(SCHEDULE), X0(SCHEDULE), V(SCHEDULE)]


def weights(weight):
    return [weight(TIMES, SCHEDULE, objective) for objective in OBJECTIVES]


def equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float64
        torch.testing.assert_close(one, torch.as_tensor(other, dtype=torch.float64), rtol=1e-11, atol=0)


def test_the_uniform_weight_is_one():
    equal(weights(uniform), [torch.ones(5)] * 3)


def test_the_snr_weight_is_one_on_eps_snr_on_x0_and_their_ratio_on_v():
    equal(weights(signal_to_noise), [torch.ones(5), SNR, SNR / (SNR + 1)])


def test_min_snr_is_the_published_table():
    """Hang et al. 2023 with gamma = 5; the same three rows are in lucidrains' code."""
    expected = [[5e-4, 0.5, 1, 1, 1], [5, 5, 5, 1, 0.01], [5 / 10001, 5 / 11, 5 / 6, 1 / 2, 0.01 / 1.01]]
    equal(weights(MinSNR(gamma=5)), expected)


def test_min_snr_without_a_bound_is_the_snr_weight():
    equal(weights(MinSNR(gamma=float("inf"))), weights(signal_to_noise))


def test_min_snr_with_an_offset_of_one_bounds_the_uniform_weight_of_v():
    v = [SNR * 0 + 1 / (SNR + 1) * (SNR + 1)]
    equal(weights(MinSNR(gamma=float("inf"), offset=1))[2:], v)
    equal(weights(MinSNR(gamma=4, offset=1))[1:2], [(SNR + 1).clamp(max=4)])


def test_p2_divides_the_weight_on_eps_by_a_power_of_one_plus_snr():
    equal(weights(P2(k=1, gamma=0.5))[:1], [(1 + SNR) ** -0.5])
    equal(weights(P2(k=1, gamma=1))[1:], [SNR / (1 + SNR), SNR / (1 + SNR) ** 2])


def test_p2_with_power_zero_is_the_snr_weight():
    equal(weights(P2(k=1, gamma=0)), weights(signal_to_noise))


@pytest.mark.parametrize("weight", [uniform, signal_to_noise, MinSNR(5), P2(1, 1), P2(1e-3, 2)])
def test_a_time_without_signal_has_a_finite_weight(weight):
    schedule = NoiseSchedule(torch.tensor([1.0, 0.0], dtype=torch.float64))
    for objective in (X0(schedule), V(schedule)):
        assert weight(torch.tensor([1]), schedule, objective).isfinite().all()


def test_times_without_noise_have_the_uniform_weight_and_no_other():
    steps = Steps(3)
    equal([uniform(TIMES[:3], steps, X0(steps))], [torch.ones(3)])
    for weight in (signal_to_noise, MinSNR(5), P2(1, 1)):
        with pytest.raises(ValueError, match="schedule=steps has times but no noise, so no snr"):
            weight(TIMES[:3], steps, X0(steps))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MinSNR(gamma=0), "gamma must be greater than 0, got 0"),
        (lambda: MinSNR(gamma="5"), "gamma must be a number, got '5'"),
        (lambda: P2(k=0, gamma=1), "k must be greater than 0, got 0"),
        (lambda: P2(k=1, gamma=-1), "gamma must be a number at least 0, got -1"),
    ],
)
def test_a_wrong_number_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
