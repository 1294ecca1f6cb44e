"""The small version of an image that a network is told: means of blocks, and what is left where it is hidden."""

import pytest
import torch
import torch.nn.functional as F
from precision import assert_same

from ddpm.base.rng import Rng
from ddpm.base.types import Prediction
from ddpm.diffusion.conditions.base import drop_conditions
from ddpm.diffusion.conditions.low_resolution import LowResolution
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.guidance.difference import ClassifierFree
from ddpm.diffusion.schedules.betas import linear


def images(num=3, channels=2, height=6, width=4):
    return torch.rand(num, channels, height, width, generator=torch.Generator().manual_seed(0)).double() * 2 - 1


def small(factor, image, dropout=0.0):
    return LowResolution(factor, dropout).of({"image": image})["concat"]


def test_a_small_image_has_the_mean_of_the_large_one():
    told = small(2, images())
    assert told.shape == (3, 2, 3, 2)
    assert_same(told.mean((2, 3)), images().mean((2, 3)))
    assert_same(told[1, 0, 2, 1], images()[1, 0, 4:6, 2:4].mean())


def test_squares_made_small_are_the_image_that_they_were():
    image = images()
    assert_same(small(3, F.interpolate(image, scale_factor=3, mode="nearest")), image)


def test_small_twice_is_small_by_the_product():
    image = images(height=12, width=12)
    assert_same(small(3, small(2, image)), small(6, image))


def test_each_image_has_its_own_whatever_the_batch():
    order = torch.tensor([2, 0, 1])
    assert small(2, images()[order]).equal(small(2, images())[order])
    assert small(2, images()[1:2]).equal(small(2, images())[1:2])


def test_the_small_shape_is_that_of_small_images():
    assert LowResolution(2, 0.0).small_shape((2, 6, 4)) == tuple(small(2, images()).shape[1:])


def test_a_hidden_small_image_is_grey_and_all_else_stays():
    condition, guess = LowResolution(2, 0.0), images()
    left = condition.unconditional({"concat": small(2, images()), "x0_guess": guess})
    assert left["concat"].equal(torch.zeros(3, 2, 3, 2).double())
    assert left["x0_guess"] is guess


def test_whole_images_are_hidden_in_training_and_as_many_as_dropout_says():
    num = 4000
    told = {"concat": torch.ones(num, 1, 2, 2)}
    left = drop_conditions(LowResolution(2, 0.25), told, Rng(0, "train").at(0, torch.arange(num)))["concat"]
    shares = left.mean((1, 2, 3))
    assert set(shares.tolist()) == {0.0, 1.0}
    assert abs((1 - shares.mean()) - 0.25) < 4 * (0.25 * 0.75 / num) ** 0.5  # four standard errors


def test_classifier_free_guidance_goes_away_from_the_prediction_without_the_small_image():
    told, process = small(2, images()), GaussianDiffusion(linear(10, 0.01, 0.5, rescale=False))

    def denoiser(x_t, t, cond):  # what it is told, enlarged
        return Prediction(F.interpolate(cond["concat"], x_t.shape[2:]))

    guided = ClassifierFree(denoiser, condition=LowResolution(2, 0.1), process=process, scale=3.0)
    expected = 3 * F.interpolate(told, (6, 4))  # 0 + 3 (c - 0)
    assert_same(guided(images(), 5, {"concat": told}).x0, expected)


def test_without_images_the_error_says_what_such_a_model_is_for():
    with pytest.raises(ValueError, match=r"task=upsample takes real images, task=cascade"):
        LowResolution(2, 0.0).of({"index": torch.arange(2), "label": torch.tensor([-1, -1])})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factor": 1, "dropout": 0.0}, "factor must be an integer of at least 2, got 1"),
        ({"factor": 2.0, "dropout": 0.0}, "factor must be an integer of at least 2, got 2.0"),
        ({"factor": 2, "dropout": -0.1}, "dropout must be a number"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        LowResolution(**settings)


def test_a_size_that_does_not_divide_is_refused_before_it_is_cut():
    with pytest.raises(
        ValueError, match=r"cond\.factor must be a divisor of the images' height and width, 6 x 4, got 4"
    ):
        small(4, images())
