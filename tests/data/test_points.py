"""Sets of points in the plane lie where their definitions say, whatever their number, and go through the loader."""

import numpy as np
import pytest
from hydra.utils import instantiate

from ddpm.data.sources.points import Checkerboard, Gaussian, Grid25, Mixture, Swirl

SETS = [Gaussian, Mixture, Grid25, Swirl, Checkerboard]
STEP = 1 / 127.5


def coordinates(images):
    """float64 [N, 2]"""
    return images.pixels[:, 0].astype(np.float64) * STEP - 1


@pytest.mark.parametrize("name", ["gaussian", "mixture", "grid25", "swirl", "checkerboard"])
def test_a_set_comes_out_of_the_loader_as_grey_images_of_one_row_and_two_pixels(config, name):
    made = config("train", "experiment=swirl", f"data={name}", "data.source.num_points=600")
    data = instantiate(made.data, _convert_="all")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (256, 1, 1, 2)
    assert data.num_classes == {"mixture": 8, "grid25": 25}.get(name)
    source = instantiate(made.data.source)
    images = source.open()
    assert images.title == name
    seen = ((batch["image"] + 1) * 127.5).round().numpy()[:, 0]
    np.testing.assert_array_equal(seen, images.pixels[batch["index"].numpy()])


@pytest.mark.parametrize("make", SETS)
def test_more_points_only_add_to_fewer_and_another_seed_gives_others(make):
    few, more, others = make(100, 0.02, 0).open(), make(300, 0.02, 0).open(), make(100, 0.02, 1).open()
    np.testing.assert_array_equal(few.pixels, more.pixels[:100])
    assert few.labels.equal(more.labels[:100])
    assert few.fingerprint() != others.fingerprint()


def test_the_gaussian_is_round_and_as_wide_as_its_noise():
    """20,000 points know the mean to 0.25 / sqrt(20000) = 0.0018, the deviation to 0.0013, the correlation to 0.007."""
    points = coordinates(Gaussian(20_000, 0.25, 0).open())
    assert np.abs(points.mean(0)).max() < 5 * 0.0018
    assert np.abs(points.std(0) - 0.25).max() < 5 * 0.0013
    assert abs(np.corrcoef(points.T)[0, 1]) < 5 * 0.007


def test_points_beyond_the_plane_lie_on_its_edge():
    pixels = Gaussian(2000, 1.0, 0).open().pixels
    outside = np.mean((pixels == 0) | (pixels == 255))
    assert abs(outside - 0.3173) < 5 * (0.3173 * 0.6827 / 4000) ** 0.5  # of a standard normal beyond 1


def test_the_mixture_names_the_direction_in_which_its_points_lie():
    """8,000 points at 0.05 around the ring: their component is 5 deviations nearer than the next."""
    images = Mixture(8000, 0.05, 0).open()
    points = coordinates(images)
    octant = np.rint(np.arctan2(points[:, 1], points[:, 0]) / (np.pi / 4)).astype(int) % 8
    np.testing.assert_array_equal(octant, images.labels)
    assert (images.class_names[0], images.class_names[2], images.class_names[5]) == ("east", "north", "south-west")
    assert np.abs(np.bincount(octant) - 1000).max() < 5 * (8000 * 1 / 8 * 7 / 8) ** 0.5
    assert abs(np.hypot(*points.T).mean() - 0.7) < 0.01


def test_the_grid_has_its_points_where_their_fields_are_and_is_even():
    """25,000 points at 0.02, whose centre is 10 deviations from the border of its field: 1,000 points of each field."""
    images = Grid25(25_000, 0.02, 0).open()
    points = coordinates(images)
    column, row = np.rint(points / 0.4 + 2).astype(int).T
    np.testing.assert_array_equal(5 * row + column, images.labels)
    assert (images.class_names[0], images.class_names[4], images.class_names[24]) == ("a1", "e1", "e5")
    assert np.abs(np.bincount(images.labels) - 1000).max() < 5 * (25_000 / 25 * 24 / 25) ** 0.5


def test_the_swirl_is_one_and_a_half_turns_whose_radius_is_proportional_to_the_angle():
    points = coordinates(Swirl(2000, 0.0, 0).open())
    radius = np.hypot(*points.T)
    assert radius.min() == pytest.approx(0.3, abs=0.01)
    assert radius.max() == pytest.approx(0.9, abs=0.01)
    angle = radius / 0.9 * 4.5 * np.pi
    on_curve = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    # rounding moves a point by up to STEP / sqrt(2); along the radius this turns the angle by 5 pi per unit
    assert np.abs(points - on_curve).max() < STEP / 2**0.5 * (1 + 0.9 * 5 * np.pi)
    assert np.abs(points - on_curve).mean() < 3 * STEP


def test_the_checkerboard_fills_its_dark_squares_evenly_and_no_others():
    points = coordinates(Checkerboard(8000, 0.0, 0).open())
    on_board = (points / 0.9 + 1) * 2  # 0..4
    edge = np.abs(on_board - np.rint(on_board)).min(1) < STEP / 2 / 0.9 * 2  # may have been rounded over the border
    column, row = np.floor(on_board[~edge]).astype(int).T
    assert edge.mean() < 0.05
    assert ((column + row) % 2 == 0).all()
    numbers = np.bincount(4 * row + column, minlength=16)
    numbers = numbers[numbers > 0]
    expected = numbers.sum() / 8
    assert len(numbers) == 8
    assert np.abs(numbers - expected).max() < 5 * (expected * 7 / 8) ** 0.5


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [("num_points", 0, "a positive integer"), ("noise", -0.1, "at least 0"), ("seed", -1, "at least 0")],
)
def test_a_field_that_cannot_be_is_refused_by_name(field, value, remedy):
    settings = {"num_points": 10, "noise": 0.1, "seed": 0}
    with pytest.raises(ValueError, match=f"^{field} must be .*{remedy}.*got {value}"):
        Swirl(**settings | {field: value})
