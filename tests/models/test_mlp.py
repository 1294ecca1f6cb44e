"""The MLP: its start, the images it takes, and what it refuses."""

from pathlib import Path

import pytest
import torch
from networks import awake
from omegaconf import OmegaConf
from precision import assert_same

from ddpm.networks.mlp import MLP

CONF = Path(__file__).parents[2] / "conf" / "model"
SMALL = {"in_channels": 1, "size": [1, 2], "width": 16, "num_blocks": 2}
TIMES = torch.tensor([0, 1, 10, 500, 999])


def images(channels=1, shape=(1, 2)):
    return torch.randn(5, channels, *shape, generator=torch.Generator().manual_seed(1)).double()


def test_the_configured_network_takes_points_and_has_0_2_million_parameters():
    data = {"channels": 1, "size": [1, 2]}
    config = OmegaConf.create({"data": data, "model": OmegaConf.load(CONF / "mlp.yaml")})
    settings = OmegaConf.to_container(config, resolve=True)["model"]
    assert settings.pop("_target_") == "ddpm.networks.mlp.MLP"
    network = MLP(**settings).double()
    assert network(images(), TIMES).shape == (5, 1, 1, 2)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(0.2e6, rel=0.25)


def test_the_output_is_zero_at_the_start():
    x = images()
    assert MLP(**SMALL).double()(x, TIMES).equal(torch.zeros_like(x))


@pytest.mark.parametrize(("size", "shape"), [(4, (4, 4)), ([2, 3], (2, 3))])
@pytest.mark.parametrize(("channels", "out_channels"), [(1, None), (3, None), (1, 2)])
def test_images_of_any_channels_and_shape_go_through(channels, out_channels, size, shape):
    network = MLP(**SMALL | {"in_channels": channels, "size": size, "out_channels": out_channels}).double()
    assert (network.in_channels, network.out_channels) == (channels, out_channels or channels)
    assert network(images(channels, shape), TIMES).shape == (5, out_channels or channels, *shape)


def test_an_image_comes_out_the_same_whatever_else_is_in_the_batch():
    network = awake(MLP(**SMALL))
    x = images()
    alone = torch.cat([network(x[i : i + 1], TIMES[i : i + 1]) for i in range(5)])
    assert_same(network(x, TIMES), alone)


def test_the_time_matters_and_may_be_a_fraction():
    network = awake(MLP(**SMALL))
    x = images()[:1]
    at = {time: network(x, torch.tensor([time])) for time in (7, 7.0, 7.01, 8)}
    assert at[7].equal(at[7.0])
    assert (at[7] - at[8]).abs().max() > 1e-3
    assert 0 < (at[7] - at[7.01]).abs().max() < 0.1 * (at[7] - at[8]).abs().max()


def test_every_parameter_is_reached_by_the_gradient():
    network = awake(MLP(**SMALL)).requires_grad_(True)
    network(images(), TIMES).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_dropout_acts_in_training_alone():
    network = awake(MLP(**SMALL | {"dropout": 0.5}))
    x = images()
    assert not network(x, TIMES).equal(network(x, TIMES))
    network.eval()
    assert network(x, TIMES).equal(network(x, TIMES))


def test_the_settings_build_the_same_network_again():
    network = awake(MLP(**SMALL | {"out_channels": 2, "size": (1, 2)}))
    again = MLP(**network.settings).double()
    again.load_state_dict(network.state_dict())
    x = images()
    assert again(x, TIMES).equal(network(x, TIMES))


def test_under_autocast_the_output_is_float32_and_near_it():
    network = awake(MLP(**SMALL)).float()
    x = images().float()
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(x, TIMES)
    exact = network(x, TIMES)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().mean() < 0.05 * exact.abs().mean()  # bfloat16 rounds by up to 2^-9 at each layer


def test_images_of_another_shape_and_unknown_conditions_are_refused():
    network = MLP(**SMALL)
    with pytest.raises(ValueError, match=r"takes images of 1 x 1 x 2 .*got 1 x 2 x 1"):
        network(torch.zeros(1, 1, 2, 1), torch.zeros(1))
    with pytest.raises(ValueError, match="takes no conditions, got label"):
        network(torch.zeros(1, 1, 1, 2), torch.zeros(1), label=torch.zeros(1))


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("in_channels", 0, "a positive integer"),
        ("out_channels", -1, "a positive integer"),
        ("size", "large", "one length or .height, width."),
        ("size", [1, 2, 3], "one length or .height, width."),
        ("size", [1, 0], "a positive integer"),
        ("width", 15, "even and at least 4"),
        ("width", 2, "even and at least 4"),
        ("num_blocks", 0, "an integer in 1..256"),
        ("num_blocks", 10**9, "an integer in 1..256"),
        ("dropout", 1.5, "at most 1"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(name, value, remedy):
    with pytest.raises(ValueError, match=rf"^{name}(\[1\])? must be .*{remedy}.*got "):
        MLP(**SMALL | {name: value})


def test_fewer_outputs_than_inputs_are_refused():
    with pytest.raises(ValueError, match="out_channels must be at least in_channels = 3, got 1"):
        MLP(**SMALL | {"in_channels": 3, "out_channels": 1})
