"""The MLP: its start, the images it takes, and what it refuses."""

import pytest
import torch
from networks import awake

from ddpm.networks.mlp import MLP

SMALL = {"in_channels": 1, "size": [1, 2], "width": 16, "num_blocks": 2}
TIMES = torch.tensor([0, 1, 10, 500, 999])


def images(channels=1, shape=(1, 2)):
    return torch.randn(5, channels, *shape, generator=torch.Generator().manual_seed(1)).double()


def test_the_output_is_zero_at_the_start():
    x = images()
    assert MLP(**SMALL).double()(x, TIMES).equal(torch.zeros_like(x))


@pytest.mark.parametrize(("size", "shape"), [(4, (4, 4)), ([2, 3], (2, 3))])
@pytest.mark.parametrize(("channels", "out_channels"), [(1, None), (3, None), (1, 2)])
def test_images_of_any_channels_and_shape_go_through(channels, out_channels, size, shape):
    network = MLP(**SMALL | {"in_channels": channels, "size": size, "out_channels": out_channels}).double()
    assert (network.in_channels, network.out_channels) == (channels, out_channels or channels)
    assert network(images(channels, shape), TIMES).shape == (5, out_channels or channels, *shape)


def test_dropout_acts_in_training_alone():
    network = awake(MLP(**SMALL | {"dropout": 0.5}))
    x = images()
    assert not network(x, TIMES).equal(network(x, TIMES))
    network.eval()
    assert network(x, TIMES).equal(network(x, TIMES))


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
        ("num_blocks", 0, "a positive integer"),
        ("dropout", 1.5, "at most 1"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(name, value, remedy):
    with pytest.raises(ValueError, match=rf"^{name}(\[1\])? must be .*{remedy}.*got "):
        MLP(**SMALL | {name: value})


def test_fewer_outputs_than_inputs_are_refused():
    with pytest.raises(ValueError, match="out_channels must be at least in_channels = 3, got 1"):
        MLP(**SMALL | {"in_channels": 3, "out_channels": 1})
