"""The border to the network: its own numbering of times, its extra channels, its dtype; and clipping."""

import math

import numpy as np
import pytest
import torch
from precision import assert_same
from torch import nn

from ddpm.base.types import Prediction
from ddpm.diffusion.denoiser import DynamicThresholding, NetworkDenoiser, StaticThresholding
from ddpm.diffusion.objective import X0, Eps
from ddpm.diffusion.schedules.base import NoiseSchedule

SCHEDULE = NoiseSchedule(torch.tensor([1, 0.9, 0.5, 0.1], dtype=torch.float64))


class Recorder(nn.Module):
    """Answers with `answer` and keeps what it was asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.calls = answer, []

    def forward(self, x, time, **cond):
        self.calls.append((x, time, cond))
        return self.answer


def test_the_network_is_told_times_from_zero_as_int64_of_the_batch():
    network = Recorder(torch.zeros(3, 1, 2, 2))
    denoiser = NetworkDenoiser(network, X0(SCHEDULE))
    x_t = torch.ones(3, 1, 2, 2)
    denoiser(x_t, 3, {})
    denoiser(x_t, torch.tensor([1, 2, 3]), {})
    denoiser.raw(x_t, 1, {})
    assert [time.tolist() for _, time, _ in network.calls] == [[2, 2, 2], [0, 1, 2], [0, 0, 0]]
    assert all(time.dtype == torch.int64 for _, time, _ in network.calls)
    assert all(x is x_t for x, _, _ in network.calls)


def test_the_conditions_reach_the_network():
    network = Recorder(torch.zeros(1, 1, 2, 2))
    label = torch.tensor([7])
    NetworkDenoiser(network, X0(SCHEDULE))(torch.ones(1, 1, 2, 2), 1, {"label": label})
    assert network.calls[0][2] == {"label": label}


def test_channels_beyond_the_objective_are_handed_on_untouched():
    answer = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    denoiser = NetworkDenoiser(Recorder(answer), X0(SCHEDULE))
    prediction = denoiser(torch.zeros(2, 3, 4, 4), 2, {})
    assert torch.equal(prediction.x0, answer[:, :3])
    assert torch.equal(prediction.extra, answer[:, 3:])
    assert torch.equal(denoiser.raw(torch.zeros(2, 3, 4, 4), 2, {}), answer)


def test_a_network_without_extra_channels_has_no_extra():
    assert (
        NetworkDenoiser(Recorder(torch.zeros(1, 1, 2, 2)), X0(SCHEDULE))(torch.zeros(1, 1, 2, 2), 1, {}).extra is None
    )


def test_the_output_goes_through_the_objective():
    x_t, eps = (torch.full((1, 1, 2, 2), value, dtype=torch.float64) for value in (2.0, 0.5))
    x0 = NetworkDenoiser(Recorder(eps), Eps(SCHEDULE))(x_t, 2, {}).x0
    assert_same(x0, (x_t - 0.5**0.5 * eps) / 0.5**0.5)  # alpha_bar(2) = 1/2


@pytest.mark.parametrize(("of_network", "expected"), [("bfloat16", "float32"), ("float64", "float64")])
def test_the_output_of_a_network_is_float32_at_least(of_network, expected):
    denoiser = NetworkDenoiser(Recorder(torch.ones(1, 1, 2, 2, dtype=getattr(torch, of_network))), Eps(SCHEDULE))
    x_t = torch.zeros(1, 1, 2, 2, dtype=getattr(torch, expected))
    assert denoiser.raw(x_t, 1, {}).dtype == denoiser(x_t, 1, {}).x0.dtype == x_t.dtype


@pytest.mark.parametrize("channels", [1, 2])
def test_clipping_holds_x0_in_its_range_and_leaves_the_rest_alone(channels):
    answer = torch.tensor([-3.0, -1.0, 0.25, 1.5]).repeat(channels, 1).view(1, channels, 2, 2)
    denoiser = StaticThresholding(NetworkDenoiser(Recorder(answer), X0(SCHEDULE)))
    prediction = denoiser(torch.zeros(1, 1, 2, 2), 1, {})
    assert prediction.x0.flatten().tolist() == [-1, -1, 0.25, 1]
    assert prediction.extra is None if channels == 1 else torch.equal(prediction.extra, answer[:, 1:])


def test_dynamic_thresholding_divides_by_the_quantile_but_never_enlarges():
    """Saharia et al. 2022, section 2.3, by hand: 200 pixels of 0.01, 0.02, ..., 2; and an image within [-1, 1]."""
    x0 = torch.stack([torch.arange(1, 201).double() / 100, torch.linspace(-0.5, 0.9, 200)]).view(2, 1, 10, 20)
    found = DynamicThresholding(lambda x, t, cond: Prediction(x0), 0.995, math.inf)(x0, 5, {}).x0
    bound = np.quantile(np.arange(1, 201) / 100, 0.995)
    np.testing.assert_allclose(found[0].flatten(), np.minimum(np.arange(1, 201) / 100, bound) / bound, rtol=1e-12)
    assert torch.equal(found[1], x0[1])
    clipped = DynamicThresholding(lambda x, t, cond: Prediction(x0), 0.995, 1.0)(x0, 5, {}).x0
    assert torch.equal(clipped, x0.clamp(-1, 1))
