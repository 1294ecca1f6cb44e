"""Masked images as a condition: the values of the mask, its nearest resizing, and the random holes."""

import pytest
import torch
import torch.nn.functional as F
from precision import assert_same

from ddpm.base.rng import Rng
from ddpm.diffusion.conditions import holes
from ddpm.diffusion.conditions.holes import random_holes
from ddpm.diffusion.conditions.masked import Masked


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).double() * 2 - 1


def as_pixels(batch):
    return batch["image"]


def half_size(batch):
    return F.avg_pool2d(batch["image"], 2)


def drawn(epoch, numbers, side=32, seed=0):
    return random_holes(Rng(seed, "masks").at(epoch, torch.tensor(numbers)), side, side)


def test_the_hole_is_black_and_the_mask_is_one_there_and_minus_one_elsewhere():
    image, hole = images(2, 3, 6, 4), torch.zeros(2, 1, 6, 4).double()
    hole[0, :, 1:3, 2:] = 1
    told = Masked(3, 0, 0.0, as_pixels).of({"image": image, "hole": hole})["concat"]
    assert told.shape == (2, 4, 6, 4)
    assert told[1, :3].equal(image[1])
    assert told[1, 3].equal(-torch.ones(6, 4).double())
    expected = image[0].clone()
    expected[:, 1:3, 2:] = -1
    assert told[0, :3].equal(expected)
    assert (told[0, 3] == 1).sum() == 4
    assert (told[0, 3, 1:3, 2:] == 1).all()


def test_x0_is_of_the_masked_image_and_the_mask_is_that_of_the_nearest_pixels():
    image, hole = images(2, 3, 8, 6), (images(2, 1, 8, 6, seed=1) > 0).double()
    told = Masked(3, 0, 0.0, half_size).of({"image": image, "hole": hole})["concat"]
    black = torch.where(hole > 0, -1.0, image)
    blocks = (black[..., ::2, ::2] + black[..., 1::2, ::2] + black[..., ::2, 1::2] + black[..., 1::2, 1::2]) / 4
    assert_same(told[:, :3], blocks)
    assert told[:, 3:].equal(2 * hole[..., ::2, ::2] - 1)


def test_masks_depend_on_the_image_the_epoch_and_the_seed_alone():
    condition = Masked(1, 3, 0.0, as_pixels)
    batch = {"image": images(4, 1, 16, 16), "index": torch.tensor([5, 2, 9, 7])}
    whole = condition.of(batch | {"epoch": torch.tensor(2)})["concat"]
    part = {name: tensor[1:3] for name, tensor in batch.items()}
    assert condition.of(part | {"epoch": torch.tensor(2)})["concat"].equal(whole[1:3])
    assert not condition.of(batch | {"epoch": torch.tensor(3)})["concat"].equal(whole)
    assert condition.of(batch)["concat"].equal(condition.of(batch | {"epoch": torch.tensor(0)})["concat"])
    assert not Masked(1, 4, 0.0, as_pixels).of(batch | {"epoch": torch.tensor(2)})["concat"].equal(whole)


def test_holes_are_between_a_hundredth_and_most_of_an_image():
    shares = drawn(0, list(range(2000))).mean((1, 2, 3))
    assert shares.min() > 0.005
    assert shares.max() < 1
    assert 0.1 < shares.mean() < 0.4


def test_a_rectangle_is_where_both_distances_from_its_middle_are_at_most_half_its_sides():
    y, x = (torch.arange(16) + 0.5)[:, None] / 16, (torch.arange(16) + 0.5)[None, :] / 16
    full, middle = torch.ones(1, 1, 1), torch.full((1, 1, 1), 0.5)
    found = holes.rectangle(y, x, full, 0 * full, middle, middle)  # sides of 1/2 and 1/8
    expected = torch.zeros(1, 16, 16, dtype=torch.bool)
    expected[:, 4:12, 7:9] = True
    assert found.equal(expected)


def test_the_distance_from_a_line_is_perpendicular_beside_it_and_from_its_ends_beyond_them():
    at = [torch.full((1, 1, 1), value).double() for value in (0.0, 0.5)]
    start, end = (at[0], at[1]), (at[0] + 0.8, at[1])  # from y = 0 to y = 0.8 at x = 0.5
    y, x = (torch.tensor(values, dtype=torch.float64) for values in ([[0.4], [1.2]], [[0.5, 0.8]]))
    expected = torch.tensor([[[0, 0.3], [0.4, 0.5]]], dtype=torch.float64)
    assert_same(holes.distance(y, x, start, end), expected)


def test_a_dropped_condition_is_zeros():
    told = Masked(1, 0, 0.1, as_pixels).of({"image": images(2, 1, 8, 8)})
    assert Masked(1, 0, 0.1).unconditional(told)["concat"].equal(torch.zeros(2, 2, 8, 8).double())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, "channels must be a positive integer"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"dropout": 2}, "dropout must be a number"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Masked(**{"channels": 3, "seed": 0, "dropout": 0.0} | settings)


def test_without_images_it_says_what_to_do():
    with pytest.raises(ValueError, match=r"cond=masked needs images, .* task=inpaint"):
        Masked(3, 0, 0.0, as_pixels).of({"index": torch.arange(2), "label": torch.tensor([-1, -1])})
