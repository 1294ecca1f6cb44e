"""Pictures show what they were given, where it was."""

import pytest
import torch
from PIL import Image

from ddpm.base.image_grid import BLUE, ORANGE, annotate, save_gif, tile_by_class, tile_images
from ddpm.diffusion.conditions.base import ClassLabel, NoCondition
from ddpm.training.callbacks.sample_grid import SampleGrid

WHITE = torch.tensor([255, 255, 255], dtype=torch.uint8)


def points(*places):
    """Images of points at levels (x, y)."""
    return torch.tensor(places, dtype=torch.uint8).view(-1, 1, 1, 2)


def like(picture, colour):
    """bool [H, W]: where the picture is nearer to this colour than to white, and not grey."""
    pixels = picture.float()
    tint, white = torch.tensor(colour).float(), torch.tensor(255.0)
    strong = pixels.max(2).values - pixels.min(2).values > 60
    return strong & ((pixels - tint).norm(dim=2) < (pixels - white).norm(dim=2))


def centre(mask):
    """Row and column of the middle of what is marked, as shares of the picture."""
    places = mask.nonzero().float()
    return ((places.amin(0) + places.amax(0)) / 2 / (torch.tensor(mask.shape) - 1)).tolist()


def test_images_lie_in_rows_two_pixels_apart():
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 1, 3, 4)
    picture = tile_images(images, num_columns=3)
    height, width = 3 * 22, 4 * 22  # the smaller side reaches 64 pixels
    assert (picture.shape, picture.dtype) == ((2 * (height + 2) + 2, 3 * (width + 2) + 2, 3), torch.uint8)
    for i in range(6):
        row, column = 2 + (height + 2) * (i // 3), 2 + (width + 2) * (i % 3)
        assert (picture[row : row + height, column : column + width] == i).all()
    assert tile_images(images[:4]).shape == tile_images(images[:4], num_columns=2).shape


def test_points_are_one_square_picture_on_white_however_many_they_are():
    one, many = tile_images(points((10, 20))), tile_images(points((10, 20)).expand(1000, 1, 1, 2))
    assert one.shape == many.shape == (one.shape[0], one.shape[0], 3)
    assert one.dtype == torch.uint8
    assert (one == WHITE).all(2).float().mean() > 0.95
    assert not tile_images(points((10, 20))[:0]).eq(one).all()


@pytest.mark.parametrize("place", [(0, 0), (255, 0), (0, 255), (255, 255), (60, 200)])
def test_a_point_is_drawn_with_x_to_the_right_and_y_upwards(place):
    x, y = place
    row, column = centre(like(tile_images(points(place)), BLUE))
    margin = 0.04  # of the paper around the plane
    assert column == pytest.approx(margin + (1 - 2 * margin) * x / 255, abs=0.02)
    assert row == pytest.approx(1 - margin - (1 - 2 * margin) * y / 255, abs=0.02)


def test_where_points_are_dense_it_is_darker_by_the_law_of_layers():
    """Each disc lets 40 % of the white through, so n of them 0.4^n."""
    blue = torch.tensor(BLUE).float()
    for n in (1, 2, 3):
        picture = tile_images(
            torch.cat([points((30, 30)).expand(n, 1, 1, 2), points((200, 200)).expand(400 - n, 1, 1, 2)])
        )
        darkest = picture[400:500, 40:140].flatten(0, 1).float().amin(0)  # around the first, without the frame
        torch.testing.assert_close(darkest, blue + (255 - blue) * 0.4**n, rtol=0, atol=0.51)


def test_columns_of_points_are_frames_side_by_side_with_odd_rows_over_even_ones():
    corners = points((20, 20), (20, 235), (235, 20), (235, 235))  # rows: (first, second), (third, fourth)
    picture = tile_images(corners, num_columns=2)
    height, width, _ = picture.shape
    assert width == 2 * height
    left, right = picture[:, :height], picture[:, height:]
    for frame, even, odd in ((left, (20, 20), (235, 20)), (right, (20, 235), (235, 235))):
        for colour, (x, y) in ((BLUE, even), (ORANGE, odd)):
            row, column = centre(like(frame, colour) & near(frame, x, y))
            assert column == pytest.approx(x / 255, abs=0.06)
            assert row == pytest.approx(1 - y / 255, abs=0.06)
    both = tile_images(points((60, 60), (60, 60)), num_columns=1)
    assert like(both, ORANGE).sum() > 0
    assert like(tile_images(points((60, 60)), num_columns=1), ORANGE).sum() == 0


def near(frame, x, y):
    """bool [H, W]: within a quarter of the frame around a point."""
    side = frame.shape[0]
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return ((columns / side - x / 255).abs() < 0.25) & ((rows / side - 1 + y / 255).abs() < 0.25)


def test_digits_are_84_pixels_high_and_large_images_keep_their_size():
    for side, drawn in ((28, 84), (32, 64), (64, 64), (256, 256)):
        picture = tile_images(torch.zeros(4, 1, side, side, dtype=torch.uint8))
        assert picture.shape == (2 * drawn + 6, 2 * drawn + 6, 3)


def dark(part):
    """Whether a part of a picture contains text on white."""
    return bool((part == 255).any()) and bool((part < 100).any())


def test_title_and_labels_lie_beside_the_picture_in_their_rows_and_columns():
    drawn = torch.full((100, 200, 3), 128, dtype=torch.uint8)
    page = annotate(drawn, "step 4", rows=["", "b"], columns=["", "t = 5"])
    height, width = page.shape[0] - 100, page.shape[1] - 200
    assert page[height:, width:].equal(drawn)
    assert dark(page[: height // 2, :80])  # the title
    assert dark(page[height // 2 : height, width + 100 :])
    assert not dark(page[height // 2 : height, : width + 100])
    assert dark(page[height + 50 :, :width])
    assert not dark(page[height : height + 50, :width])
    assert annotate(drawn).equal(drawn)


def test_a_page_is_as_wide_as_its_title():
    picture = torch.zeros(10, 10, 3, dtype=torch.uint8)
    page = annotate(picture, "a title that is wider than ten pixels")
    assert page.shape[1] > 100
    assert not dark(page[:-10, -4:])


def test_classes_are_named_rows_of_enlarged_images():
    images = torch.zeros(3, 1, 28, 28, dtype=torch.uint8)
    page = tile_by_class(images, [1, 0, 1], ["cat", "dog"].__getitem__)
    assert page.shape[0] == 2 * 86 + 2
    left = page.shape[1] - (2 * 86 + 2)
    assert all(dark(page[86 * row : 86 * row + 86, :left]) for row in (0, 1))
    assert (page[4:80, left + 90 : left + 170] == 255).all(), "class 0 has one image: the rest of its row is empty"


def test_other_small_images_are_no_points():
    assert tile_images(torch.zeros(4, 1, 2, 1, dtype=torch.uint8)).shape == (2 * 130 + 2, 2 * 66 + 2, 3)
    assert tile_images(torch.zeros(4, 3, 1, 2, dtype=torch.uint8)).shape == (2 * 66 + 2, 2 * 130 + 2, 3)


def test_a_film_of_points_plays_all_its_frames(tmp_path):
    frames = [tile_images(points((level, level))) for level in range(0, 255, 50)]
    save_gif(tmp_path / "film.gif", frames)
    with Image.open(tmp_path / "film.gif") as film:
        assert (film.n_frames, film.size) == (6, frames[0].shape[1::-1])


@pytest.mark.parametrize(
    ("condition", "number"),
    [(NoCondition(), 64), (ClassLabel(10, 0.1), 60), (ClassLabel(64, 0.1), 64), (ClassLabel(1000, 0.1), 64)],
)
def test_the_grid_of_a_training_has_full_rows_if_there_is_a_row_for_each_class(condition, number):
    assert SampleGrid(64, 1, []).num_in_full_rows(condition) == number
