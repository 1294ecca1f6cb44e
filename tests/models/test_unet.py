"""The U-Net of Ho et al. 2020: its published size, its start, the images it takes, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from networks import awake
from precision import assert_same

from ddpm.networks import UNet
from ddpm.networks.attention import Attention

SMALL = {"in_channels": 1, "base_channels": 8, "channel_mults": [1, 2, 2], "num_res_blocks": 1, "num_groups": 4}


def test_attention_is_at_its_levels_on_the_way_down_and_up_and_in_the_middle():
    network = UNet(**SMALL | {"num_res_blocks": 2, "attention_levels": [1]})
    found = [name.split(".blocks")[0] for name, module in network.named_modules() if isinstance(module, Attention)]
    assert found == ["down.1", "down.1", "middle.0.attention", "up.1", "up.1", "up.1"]


def test_the_output_is_zero_at_the_start():
    x = torch.randn(2, 1, 8, 8)
    assert UNet(**SMALL)(x, torch.tensor([3, 500])).equal(torch.zeros_like(x))


@pytest.mark.parametrize("patch_size", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (8, 24)], ids=["square", "not square"])
@pytest.mark.parametrize(("channels", "out_channels"), [(1, None), (3, None), (3, 6)])
def test_grey_and_coloured_images_of_any_fitting_shape_go_through(channels, out_channels, size, patch_size):
    network = UNet(**SMALL | {"in_channels": channels, "out_channels": out_channels, "patch_size": patch_size})
    network.requires_grad_(False)
    assert (network.in_channels, network.out_channels) == (channels, out_channels or channels)
    assert network(torch.randn(2, channels, *size), torch.tensor([0, 9])).shape == (2, out_channels or channels, *size)


def test_patches_are_pixels_moved_to_channels_before_and_back_after():
    on_patches = awake(UNet(**SMALL | {"patch_size": 2}))
    on_pixels = UNet(**SMALL | {"in_channels": 4}).double()
    on_pixels.load_state_dict(on_patches.state_dict())
    x, time = torch.randn(2, 1, 16, 8).double(), torch.tensor([5, 700])
    expected = F.pixel_shuffle(on_pixels(F.pixel_unshuffle(x, 2), time), 2)
    assert_same(on_patches(x, time), expected)


def test_dropout_acts_in_training_alone():
    network = awake(UNet(**SMALL | {"dropout": 0.5}))
    x, time = torch.randn(1, 1, 8, 8).double(), torch.tensor([5])
    assert not network(x, time).equal(network(x, time))
    network.eval()
    assert network(x, time).equal(network(x, time))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((30, 28), "image size 30 x 28 is not divisible by 8 .* 24 x 24 or 32 x 32"),
        ((16, 3), "image size 16 x 3 is not divisible by 8 .* 16 x 8, or use fewer"),
    ],
)
def test_a_size_that_cannot_be_halved_so_often_is_refused_with_the_nearest_that_can(size, message):
    network = UNet(**SMALL | {"patch_size": 2})
    with pytest.raises(ValueError, match=message):
        network(torch.zeros(1, 1, *size), torch.zeros(1))


def test_images_of_other_channels_and_unknown_conditions_are_refused():
    network = UNet(**SMALL)
    with pytest.raises(ValueError, match="in_channels = 1, got images of 3"):
        network(torch.zeros(1, 3, 8, 8), torch.zeros(1))
    with pytest.raises(ValueError, match="takes no conditions, got label"):
        network(torch.zeros(1, 1, 8, 8), torch.zeros(1), label=torch.zeros(1))


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("in_channels", 0, "a positive integer"),
        ("out_channels", -1, "a positive integer"),
        ("base_channels", 8.5, "a positive integer"),
        ("base_channels", 10, "a multiple of num_groups = 4"),
        ("channel_mults", [], "one integer per level"),
        ("channel_mults", 2, "a list of integers"),
        ("channel_mults", [1, 0], "a positive integer"),
        ("num_res_blocks", "two", "a positive integer"),
        ("attention_levels", [3], "an integer in 0..2"),
        ("attention_levels", "1", "a list of integers"),
        ("dropout", 1.5, "at most 1"),
        ("num_heads", 3, "a divisor of 16"),
        ("num_groups", 0, "a positive integer"),
        ("patch_size", 0.5, "a positive integer"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(name, value, remedy):
    with pytest.raises(ValueError, match=f"^{name} must be .*{remedy}.*got "):
        UNet(**SMALL | {name: value})
