"""StackedMNIST shows in each channel the digit that the label names, drawn as a function of the image's number."""

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from ddpm.data.sources.mnist import Mnist
from ddpm.data.sources.points import Grid25
from ddpm.data.sources.stacked_mnist import StackedMnist


def test_each_channel_is_an_embedded_digit_of_the_class_that_the_label_names():
    digits, images = Mnist().open(), StackedMnist(Mnist(), 300).open()
    of_pixels = {digits.pixels[k].tobytes(): int(digits.labels[k]) for k in range(len(digits))}
    for number in range(300):
        image = images.image(number)
        assert (image.shape, image.dtype) == ((28, 28, 3), np.uint8)
        a, b, c = (of_pixels[image[:, :, channel].tobytes()] for channel in range(3))
        assert images.labels[number] == 100 * a + 10 * b + c
        assert images.class_names[images.labels[number]] == f"{a}{b}{c}"


def test_more_images_only_add_to_fewer_and_have_another_fingerprint():
    few, more = StackedMnist(Mnist(), 40).open(), StackedMnist(Mnist(), 90).open()
    assert more.numbers[:40].equal(few.numbers)
    assert few.fingerprint() not in (more.fingerprint(), more.digits.fingerprint())


def test_digits_are_drawn_evenly_and_the_channels_independently():
    """256,000 images: 256 of each class, whose chi-squared with 999 degrees of freedom is 999 with deviation 45."""
    images = StackedMnist(Mnist(), 256_000).open()
    counts = images.labels.bincount(minlength=1000).double()
    assert abs(float(((counts - 256).square() / 256).sum()) - 999) < 4 * (2 * 999) ** 0.5


def test_the_option_gives_batches_of_28_or_32_pixels_whatever_the_seed(config):
    def made(*words):
        settings = config("train", "data=stacked_mnist", "data.source.num_images=200", *words)
        return instantiate(settings.data, _convert_="all")

    data = made()
    assert (data.num_classes, len(data.class_names), data.image_shape) == (1000, 1000, (3, 28, 28))
    batch = next(iter(data.train_dataloader()))
    image = StackedMnist(Mnist(), 200).open().image(int(batch["index"][0]))
    shown = ((batch["image"][0] + 1) * 127.5).round().to(torch.uint8)
    assert shown.equal(torch.from_numpy(image).permute(2, 0, 1))
    assert made("seed=5").content_hash() == data.content_hash()
    assert made("data.size=32", "data.resize=bilinear").split("train").pixels.images.shape == (200, 3, 32, 32)


def test_what_cannot_be_stacked_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^num_images must be a positive integer, got 0$"):
        StackedMnist(Mnist(), 0)
    with pytest.raises(ValueError, match=r"^data.source.of must be images of digits .*0 to 24"):
        StackedMnist(Grid25(500, 0.0, 0), 9).open()
