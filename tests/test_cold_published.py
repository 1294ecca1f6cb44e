"""The experiments of Cold Diffusion degrade images as the commands of its authors do (their README and code).

The definitions are written once more with scipy and numpy, in float64; only bicubic resizing is torch's, as theirs is.
"""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from precision import roundings
from scipy import ndimage
from small_runs import ROOT, composed

from ddpm.base.rng import Rng
from ddpm.commands.options import options_of

CONF = ROOT / "conf"
RNG = Rng(2, "sample")
COLOUR = re.compile("cold_(cifar10|celeba)_")


def blurred(image, t, sigma_of, radius, mode):
    for i in range(t):
        for axis in (1, 2):
            image = ndimage.gaussian_filter1d(image, sigma_of(i), axis, radius=radius, mode=mode)
    return image


def averaged_at_300(image, t):
    mean = np.broadcast_to(image.mean((1, 2), keepdims=True), image.shape)
    return truncated(mean if t == 300 else blurred(image, t, lambda i: math.exp(0.01 * i), 13, "wrap"))


def truncated(image):
    return ((image + 1) * 0.5 * 255 + 1e-9).astype(int) / 255 * 2 - 1  # 1e-9: float64 of a whole level is below it


def holes(side, t, growth):
    """The product of 1 - Gaussian, of 2 side + 1 pixels, less the first row and column; the centre is at side - 1."""
    squared = (np.arange(2 * side + 1) - side) ** 2
    left = np.ones((2 * side + 1, 2 * side + 1))
    for i in range(t):
        left *= 1 - np.exp(-(squared[:, None] + squared) / (2 * (growth * (i + 11)) ** 2))
    return left[1:, 1:]


def masked_in_the_middle(image, t):
    side = image.shape[-1]
    start = side // 2  # the Gaussian of side + 1 pixels is the middle of that of 2 side + 1
    return image * holes(side, t, 0.2)[start : start + side, start : start + side]


def resized(image, t):
    x, side = torch.from_numpy(image)[None], image.shape[-1]
    for i in range(t):
        x = F.interpolate(F.interpolate(x, size=side // 2 ** (i + 1), mode="bicubic"), size=side, mode="nearest-exact")
    return x[0].numpy()


def drained(image, t):
    return image + t / 20 * (image.mean(0) - image)


PUBLISHED = {  # the number of steps, and the image at time t
    "cold_mnist_blur": (20, lambda x, t: blurred(x, t, lambda i: 7, 5, "wrap")),
    "cold_mnist_pixelate": (3, resized),
    "cold_cifar10_blur": (50, lambda x, t: blurred(x, t, lambda i: i / 100 + 0.35, 5, "mirror")),
    "cold_cifar10_pixelate": (3, resized),
    "cold_cifar10_decolor": (20, drained),
    "cold_celeba_blur": (200, lambda x, t: blurred(x, t, lambda i: math.exp(0.01 * i), 7, "mirror")),
    "cold_celeba_mask": (100, masked_in_the_middle),
    "cold_celeba_pixelate": (4, resized),
    "cold_celeba_decolor": (20, drained),
    "cold_celeba_generate": (300, averaged_at_300),
}


def degraded(experiment, times):
    """An image, the state z, and the experiment's x_t at these times."""
    config = composed("train", "run_dir=x", f"experiment={experiment}")
    process = instantiate(config.process)(schedule=instantiate(config.schedule))
    x0 = RNG.at(0, torch.arange(1)).normal("x", (config.data.channels, config.data.size, config.data.size))
    x0 = (x0.clamp(-1, 1) * 127.5).round().double() / 127.5
    z = process.draw(x0, RNG.at(process.T, torch.arange(1)))
    return process.T, x0[0].numpy(), z, {t: process.apply(x0, z, t)[0] for t in times}


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_an_experiment_degrades_images_as_the_authors_do(experiment):
    T, definition = PUBLISHED[experiment]
    steps, x0, _, x = degraded(experiment, (1, T // 2, T))
    assert steps == T
    for t, x_t in x.items():
        error = np.abs(x_t.numpy() - definition(x0, t))
        if "generate" in experiment:  # a value on the border of two levels may be rounded either way
            assert (error > roundings(4)).mean() < 1e-3
        else:
            assert error.max() < 1e-10


@pytest.mark.parametrize(("experiment", "side"), [("cold_mnist_mask", 28), ("cold_cifar10_mask", 32)])
def test_a_random_hole_is_cut_from_the_authors_larger_one_and_truncated(experiment, side):
    steps, x0, z, x = degraded(experiment, (1, 25, 50))
    assert steps == 50
    assert composed("train", "run_dir=x", f"experiment={experiment}").process.shift == 1
    row, column = (side - 1 - z[0]).tolist()
    for t, x_t in x.items():
        hole = holes(side, t, 0.1)[row : row + side, column : column + side]
        error = np.abs(x_t.numpy() - truncated(x0 * hole))
        assert (error > 1e-10).mean() < 0.3  # far from the hole, x0 is a level itself: rounding decides
        assert error.max() < 2 / 255 + 1e-10


@pytest.mark.parametrize(("experiment", "level"), [("cold_cifar10_snow", 3), ("cold_celeba_snow", 4)])
def test_snow_has_the_authors_level_and_does_not_whiten(experiment, level):
    made = composed("train", "run_dir=x", f"experiment={experiment}")
    assert (made.process.level, made.process.whiten, made.schedule.num_timesteps) == (level, False, 200)


@pytest.mark.parametrize("experiment", [each for each in options_of(CONF, "experiment") if COLOUR.match(each)])
def test_training_is_that_of_the_authors(experiment):
    made = composed("train", "run_dir=x", f"experiment={experiment}")
    assert (made.optimizer.lr, made.optimizer.warmup_steps, made.trainer.gradient_clip_val) == (2e-5, 0, None)
    assert made.ema.decay == pytest.approx(0.995 ** (1 / 10), abs=1e-5)
    assert made.trainer.max_steps == (350_000 if experiment == "cold_celeba_mask" else 700_000)
