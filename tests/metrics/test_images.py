"""The one road from [-1, 1] to 8 bits."""

import pytest
import torch

from ddpm.base.images import to_rgb, to_uint8

LEVELS = torch.arange(256, dtype=torch.uint8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_all_256_levels_survive_the_round_trip(dtype):
    assert torch.equal(to_uint8((LEVELS.double() / 127.5 - 1).to(dtype)), LEVELS)


def test_values_are_rounded_to_the_nearest_level_and_not_truncated():
    step = 1 / 127.5
    just_under_the_middle = LEVELS.double() / 127.5 - 1 + 0.49 * step
    just_over_the_middle = LEVELS.double() / 127.5 - 1 - 0.49 * step
    assert torch.equal(to_uint8(just_under_the_middle), LEVELS)
    assert torch.equal(to_uint8(just_over_the_middle), LEVELS)


def test_overshoot_is_clamped():
    assert to_uint8(torch.tensor([-7.0, -1.0, 1.0, 1.3])).tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        to_uint8(torch.tensor([0.0, bad, 0.5]))


def test_images_that_are_8_bit_already_are_refused():
    with pytest.raises(ValueError, match=r"floating point.*uint8"):
        to_uint8(LEVELS)
    with pytest.raises(ValueError, match=r"\[-1, 1\].*255"):
        to_uint8(LEVELS.float())


def test_no_images_are_no_pixels():
    assert to_uint8(torch.zeros(0, 3, 4, 4)).shape == (0, 3, 4, 4)


def test_grey_is_repeated_and_colour_untouched():
    grey, colour = torch.rand(2, 1, 4, 5), torch.rand(2, 3, 4, 5)
    assert torch.equal(to_rgb(grey), torch.cat([grey, grey, grey], dim=1))
    assert torch.equal(to_rgb(colour), colour)
    with pytest.raises(ValueError, match=r"\[2, 4, 4, 5\]"):
        to_rgb(torch.rand(2, 4, 4, 5))
