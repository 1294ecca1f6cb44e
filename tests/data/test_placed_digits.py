"""Placed digits show one embedded digit each, enlarged and complete, as a function of the image's number."""

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.config import build
from ddpm.data.sources.mnist import Mnist
from ddpm.data.sources.placed_digits import PlacedDigits


def test_an_image_is_its_enlarged_digit_on_black():
    digits, images = Mnist().open(), PlacedDigits(Mnist(), 50, 64, 1.5, 2.2).open()
    assert (images.image(0).shape, images.image(0).dtype) == ((64, 64), np.uint8)
    for number in range(50):
        digit, side = int(images.numbers[number]), int(images.sides[number])
        top, left = images.places[number].tolist()
        image = images.image(number).astype(int)
        assert images.labels[number] == digits.labels[digit]
        inside = image[top : top + side, left : left + side]
        assert image.sum() == inside.sum()
        enlarged = Image.fromarray(np.asarray(digits.image(digit)).squeeze()).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        assert np.array_equal(inside, np.asarray(enlarged))


def test_factors_and_places_fill_their_ranges():
    images = PlacedDigits(Mnist(), 5000, 64, 1.5, 2.2).open()
    assert (images.sides.min(), images.sides.max()) == (42, 62)
    assert images.places.min() == 0
    assert ((images.places + images.sides[:, None]).max()) == 64


def test_more_images_only_add_to_fewer():
    few, more = (PlacedDigits(Mnist(), num, 64, 1.5, 2.2).open() for num in (40, 90))
    assert more.numbers[:40].equal(few.numbers)
    assert more.places[:40].equal(few.places)
    assert few.fingerprint() != more.fingerprint()


def test_the_option_gives_batches_of_64_pixels(small):
    batch = next(iter(build.data(small("data=mnist64", "data.source.num_images=64")).train_dataloader()))
    assert batch["image"].shape == (16, 1, 64, 64)
    assert batch["label"].dtype == torch.int64


def test_digits_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"data.source.largest must be at most 2.28571: digits of 28 pixels must fit"):
        PlacedDigits(Mnist(), 5, 64, 1.5, 3.0).open()
