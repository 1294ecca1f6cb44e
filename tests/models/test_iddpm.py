"""The networks of Improved DDPM: published sizes, adaptive norm, heads, scale of time; and self-conditioning."""

import pytest
import torch
from networks import awake

from ddpm.networks import UNet
from ddpm.networks.blocks import ResBlock

SMALL = {"in_channels": 2, "base_channels": 8, "channel_mults": [1, 2], "num_res_blocks": 1, "num_groups": 4}
TIMES = torch.tensor([0, 1, 500])


def images(channels=2, seed=1):
    return torch.randn(3, channels, 8, 16, generator=torch.Generator().manual_seed(seed)).double()


def test_a_block_with_an_adaptive_norm_starts_as_the_identity():
    x = images(channels=8)
    block = ResBlock(8, 8, emb_channels=16, dropout=0.0, num_groups=4, scale_shift=True).double()
    assert block(x, torch.ones(3, 16).double()).equal(x)


def test_times_of_4000_are_seen_as_quarters_of_those_of_1000():
    of_4000, as_they_are = (awake(UNet(**SMALL, num_timesteps=number)) for number in (4000, None))
    for time in (TIMES, torch.tensor([0.5, 3.75, 999.75])):  # a quarter is exact in binary
        assert of_4000(images(), 4 * time).equal(as_they_are(images(), time))


def test_a_thousand_timesteps_change_nothing():
    of_1000, as_they_are = (awake(UNet(**SMALL, num_timesteps=number)) for number in (1000, None))
    assert of_1000(images(), TIMES).equal(as_they_are(images(), TIMES))


# Self-conditioning


def test_a_network_says_whether_it_takes_a_guess_and_refuses_one_otherwise():
    plain, conditioned = UNet(**SMALL), UNet(**SMALL, self_condition=True)
    assert (plain.self_condition, conditioned.self_condition) == (False, True)
    with pytest.raises(ValueError, match="takes no conditions, got x0_guess"):
        plain(images(), TIMES, x0_guess=images())
    with pytest.raises(ValueError, match="takes no conditions but x0_guess, got label"):
        conditioned(images(), TIMES, x0_guess=images(), label=TIMES)


def test_a_guess_of_another_shape_is_refused():
    network = UNet(**SMALL, self_condition=True)
    with pytest.raises(ValueError, match=r"x0_guess must be of the images' shape \[3, 2, 8, 16\], got \[1, 2, 8, 16\]"):
        network(images(), TIMES, x0_guess=images()[:1])


# All of it


def test_every_parameter_is_reached_by_the_gradient_without_a_guess_too():
    network = awake(UNet(**SMALL, scale_shift=True, num_timesteps=4000, self_condition=True)).requires_grad_(True)
    network(images(), TIMES, x0_guess=images(seed=2)).square().sum().backward()
    assert [name for name, p in network.named_parameters() if not p.grad.abs().max() > 0] == []
    network.zero_grad()
    network(images(), TIMES).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []  # which DDP would wait for


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("scale_shift", "yes", "true or false"),
        ("self_condition", 1, "true or false"),
        ("num_timesteps", 0, "a positive integer"),
        ("num_timesteps", 250.0, "a positive integer"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(name, value, remedy):
    with pytest.raises(ValueError, match=f"^{name} must be {remedy}, got "):
        UNet(**SMALL | {name: value})
