"""Every degradation of Cold Diffusion: nothing at t = 0, what its definition says at each t, one state a trajectory."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from precision import assert_same
from scipy import ndimage

from ddpm.base.rng import Rng
from ddpm.diffusion.degradations.base import fit_statistics
from ddpm.diffusion.degradations.blur import Blur
from ddpm.diffusion.degradations.fade import Decolor, Fade
from ddpm.diffusion.degradations.mask import Mask
from ddpm.diffusion.degradations.pixelate import Pixelate
from ddpm.diffusion.degradations.snow import LEVELS, Snow
from ddpm.diffusion.degradations.snowfall import Snowfall, enlarge
from ddpm.diffusion.schedules.base import Steps
from ddpm.diffusion.schedules.curves import cosine

RNG = Rng(3, "sample")
IDS = torch.arange(5)
X0 = RNG.at(0, IDS).normal("x", (3, 14, 11)).mul(0.5).clamp(-1, 1)


def blur(T=6, **changes):
    fields = {"kernel": 5, "sigma": 0.8, "growth": "linear", "rate": 0.3, "padding": "reflect", "to_mean": False}
    fields |= {"levels": None, "rounding": "nearest", "fitted": None, "symmetry_noise": 0.0}
    return Blur(schedule=Steps(T), **fields | changes)


def mask(T=8, **changes):
    fields = {"sigma_step": 0.3, "initial": 1, "center": "random", "shift": 0, "value": 0.0}
    return Mask(schedule=Steps(T), **fields | {"levels": None, "rounding": "nearest"} | changes)


def pixelate(T=3, **changes):
    fields = {"mode": "area", "cumulative": False, "fitted": None, "symmetry_noise": 0.0}
    return Pixelate(schedule=Steps(T), **fields | changes)


def snow(T=10, **changes):
    return Snow(schedule=Steps(T), **{"severity": 3, "length": 3} | changes)


def snowfall(T=10, **changes):
    return Snowfall(schedule=Steps(T), **{"level": 3, "whiten": False} | changes)


def fade(T=7, **changes):
    return Fade(schedule=Steps(T), **{"colour": 0.3, "fitted": None, "symmetry_noise": 0.0} | changes)


ALL = {
    "blur": blur(),
    "rounded": blur(levels=256, to_mean=True, padding="circular"),
    "mask": mask(),
    "black mask": mask(value=-1.0, center="middle"),
    "mask of the authors": mask(initial=11, sigma_step=0.1, shift=1, levels=256, rounding="down"),
    "pixelate": pixelate(),
    "bicubic": pixelate(mode="bicubic"),
    "cumulative": pixelate(mode="bicubic", cumulative=True),
    "snow": snow(),
    "snowfall": snowfall(),
    "whitened snowfall": snowfall(level=1, whiten=True),
    "fade": fade(),
    "decolor": Decolor(schedule=Steps(9)),
}
LINEAR = ("blur", "mask", "pixelate", "bicubic", "cumulative", "decolor")  # in x0


def state(process, x0=X0, ids=IDS):
    return process.draw(x0, RNG.at(process.T, ids))


every = pytest.mark.parametrize("process", ALL.values(), ids=ALL)


# What all have in common


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_happens_at_0(process, dtype):
    x0 = X0.to(dtype)
    for t in (0, torch.zeros(5, dtype=torch.int64)):
        assert torch.equal(process.apply(x0, state(process, x0), t), x0)


@every
def test_times_of_a_batch_are_those_of_each_image(process):
    t = torch.tensor([0, 1, process.T // 2, process.T - 1, process.T])
    x0 = X0.double()
    together = process.apply(x0, z := state(process, x0), t)
    for row, time in enumerate(t.tolist()):
        some = slice(row, row + 1)
        assert_same(together[some], process.apply(x0[some], z[some], time))


@every
def test_an_image_is_degraded_the_same_whatever_is_beside_it(process):
    order, x0 = torch.tensor([3, 0, 4]), X0.double()
    z = state(process, x0)
    assert torch.equal(state(process, x0[order], IDS[order]), z[order])
    for t in (1, process.T):
        assert_same(process.apply(x0[order], z[order], t), process.apply(x0, z, t)[order])


@every
def test_what_a_trajectory_began_with_is_what_it_ends_with(process):
    z = state(process)
    x_t = process.apply(X0, z, 2)
    assert process.recover_noise(x_t, torch.zeros_like(X0), 2, z) is z


@pytest.mark.parametrize("name", LINEAR)
def test_it_is_linear_in_the_image(name):
    process, x, y = ALL[name], X0.double(), X0.double().flip(0)
    z = state(process)
    for t in (1, process.T):
        whole = process.apply(2 * x - 3 * y, z, t)
        torch.testing.assert_close(whole, 2 * process.apply(x, z, t) - 3 * process.apply(y, z, t), rtol=0, atol=1e-12)


@every
def test_detail_is_lost_step_by_step(process):
    """The distance falls by no more than a little: 8-bit rounding, and blurs and streaks that are not nested."""
    z = state(process)
    distances = [(process.apply(X0, z, t) - X0).square().mean().sqrt().item() for t in range(process.T + 1)]
    assert all(later >= earlier - 0.025 for earlier, later in itertools.pairwise(distances))
    assert distances[-1] > 0.05


# Blur


@pytest.mark.parametrize("padding", ["reflect", "circular"])
@pytest.mark.parametrize("growth", ["constant", "linear", "exponential"])
def test_a_blur_is_one_convolution_more_at_each_step(padding, growth):
    """torch's own padding and convolution with a kernel of two dimensions, in float64."""
    process = blur(padding=padding, growth=growth, rate=0.2)
    x = X0.double()
    place = torch.arange(5, dtype=torch.float64) - 2
    for i in range(process.T):
        sigma = {"constant": 0.8, "linear": 0.8 + 0.2 * i, "exponential": 0.8 * math.exp(0.2 * i)}[growth]
        kernel = torch.exp(-(place[:, None].square() + place.square()) / (2 * sigma**2))
        kernel = (kernel / kernel.sum()).expand(3, 1, 5, 5)
        x = F.conv2d(F.pad(x, (2, 2, 2, 2), mode=padding), kernel, groups=3)
        torch.testing.assert_close(process.apply(X0.double(), state(process), i + 1), x, rtol=0, atol=1e-12)


def test_a_circular_blur_keeps_the_mean_and_to_mean_ends_with_it():
    process = blur(padding="circular", to_mean=True)
    mean = X0.double().mean((2, 3), keepdim=True)
    for t in range(process.T + 1):
        kept = process.apply(X0.double(), state(process), t).mean((2, 3), keepdim=True)
        torch.testing.assert_close(kept, mean, rtol=0, atol=1e-12)
    last = process.apply(X0.double(), state(process), process.T)
    torch.testing.assert_close(last, mean.expand_as(last), rtol=0, atol=1e-12)
    assert process.fits_prior
    assert not blur().fits_prior
    assert_same(process.terminal_statistics(last), mean[:, :, 0, 0])
    assert_same(process.from_statistics(process.terminal_statistics(last), (3, 14, 11)), last)


def test_levels_are_those_of_8_bits():
    process = blur(levels=256)
    x = process.apply(X0.double(), state(process), 3)
    assert_same((x + 1) * 127.5, ((x + 1) * 127.5).round())
    assert (x - blur().apply(X0.double(), state(process), 3)).abs().max() <= 1 / 255 + 1e-10


@pytest.mark.parametrize("make", [blur, mask])
def test_rounding_down_truncates_as_a_conversion_to_integers_does(make):
    """The authors' step in numpy, in the precision of training."""
    exact, process = make(), make(levels=256, rounding="down")
    z = state(exact)
    bytes_of = ((exact.apply(X0, z, 3).numpy() + np.float32(1)) * np.float32(0.5) * np.float32(255)).astype(np.int32)
    expected = bytes_of.astype(np.float32) / np.float32(255) * 2 - 1
    assert torch.equal(process.apply(X0, z, 3), torch.from_numpy(expected))


# Mask


@pytest.mark.parametrize("center", ["random", "middle"])
def test_a_hole_is_the_product_of_what_each_gaussian_leaves(center):
    process = mask(center=center)
    z = state(process)
    if center == "middle":
        assert z.tolist() == [[7, 5]] * 5
    rows, columns = torch.arange(14).view(-1, 1), torch.arange(11)
    left = torch.ones(5, 14, 11, dtype=torch.float64)
    for i in range(process.T):
        for row in range(5):
            squared = ((rows - z[row, 0]) ** 2 + (columns - z[row, 1]) ** 2).double()
            gaussian = torch.exp(-squared / (2 * (0.3 * (i + 1)) ** 2))
            left[row] *= 1 - gaussian / gaussian.max()
        expected = X0.double() * left[:, None]
        torch.testing.assert_close(process.apply(X0.double(), z, i + 1), expected, rtol=0, atol=1e-12)


def gaussian(side, center, sigma):
    """With the peak 1, float64 `[side, side]`."""
    place = np.arange(side) - center
    return np.exp(-(place[:, None] ** 2 + place**2) / (2 * sigma**2))


def test_the_hole_of_the_authors_is_cut_from_larger_gaussians():
    """Middle: side + 1 pixels without the first row and column. Random: a part of 2 side + 1 pixels without them."""
    side, x = 14, RNG.at(0, IDS).normal("square", (3, 14, 14)).double()
    fields = {"sigma_step": 0.2, "initial": 11, "shift": 1}
    middle, anywhere = mask(center="middle", **fields), mask(**fields)
    large, small = np.ones((2 * side, 2 * side)), np.ones((side, side))
    z = state(anywhere, x)
    for i in range(8):
        small *= 1 - gaussian(side + 1, side // 2, 0.2 * (i + 11))[1:, 1:]
        large *= 1 - gaussian(2 * side + 1, side, 0.2 * (i + 11))[1:, 1:]
        assert_same(middle.apply(x, state(middle, x), i + 1), x * torch.from_numpy(small))
        for row, (y, z_x) in enumerate((side - 1 - z).tolist()):  # where the part begins
            part = torch.from_numpy(large[y : y + side, z_x : z_x + side])
            assert_same(anywhere.apply(x, z, i + 1)[row], x[row] * part)
    many = anywhere.draw(torch.empty(2000, 1, 4, 4), RNG.at(8, torch.arange(2000)))
    assert many.unique().tolist() == [-1, 0, 1, 2, 3]


def test_a_hole_shows_its_colour():
    process = mask(value=-1.0)
    z = state(process)
    x = process.apply(X0, z, process.T)
    assert all((x[row, :, z[row, 0], z[row, 1]] == -1).all() for row in range(5))


def test_centres_are_drawn_over_all_pixels():
    ids = torch.arange(20_000)
    z = mask().draw(torch.empty(len(ids), 1, 3, 5), RNG.at(8, ids))
    counts = torch.bincount(z[:, 0] * 5 + z[:, 1], minlength=15)
    assert (counts - 20_000 / 15).abs().max() < 5 * math.sqrt(20_000 / 15)


# Pixelate


def test_a_pixel_is_the_mean_of_those_it_stands_for():
    process, x = pixelate(), X0[..., :8, :8].double()
    for t, side in ((1, 2), (2, 4), (3, 8)):
        blocks = x.unfold(2, side, side).unfold(3, side, side).mean((-2, -1))
        expected = blocks.repeat_interleave(side, 2).repeat_interleave(side, 3)
        torch.testing.assert_close(process.apply(x, state(process), t), expected, rtol=0, atol=1e-12)
        again = process.apply(expected, state(process), t)
        torch.testing.assert_close(again, expected, rtol=0, atol=1e-12)  # twice is once


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
def test_sides_that_are_odd_are_halved_downwards_as_torch_resizes_them(mode):
    """14 x 11 to 7 x 5, 3 x 2 and 1 x 1, and back by nearest-exact."""
    process, x = pixelate(mode=mode), X0.double()
    for t, size in ((1, (7, 5)), (2, (3, 2)), (3, (1, 1))):
        expected = F.interpolate(F.interpolate(x, size, mode=mode), (14, 11), mode="nearest-exact")
        torch.testing.assert_close(process.apply(x, state(process), t), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
def test_a_cumulative_step_reduces_the_image_of_the_step_before(mode):
    process, x = pixelate(mode=mode, cumulative=True), X0.double()
    for t, size in ((1, (7, 5)), (2, (3, 2)), (3, (1, 1))):
        x = F.interpolate(F.interpolate(x, size, mode=mode), (14, 11), mode="nearest-exact")
        torch.testing.assert_close(process.apply(X0.double(), state(process), t), x, rtol=0, atol=1e-12)


def test_the_smallest_pixels_are_all_that_is_left():
    process = pixelate(T=2)
    last = process.apply(X0.double(), state(process), 2)
    statistics = process.terminal_statistics(last)
    assert statistics.shape == (5, 3 * 3 * 2)
    assert_same(process.from_statistics(statistics, (3, 14, 11)), last)
    assert fit_statistics(pixelate(T=1), [X0]) is None  # 105 numbers
    assert len(fit_statistics(process, [X0])["mean"]) == 18


# Snow


def snowed(x0, z, t, T, level, length):
    """The definition once more, image by image in numpy."""
    u, out = t / T, []
    for image, drawn in zip((x0.double().numpy() + 1) / 2, z.double().numpy(), strict=True):
        field = drawn[1:].reshape(image.shape[1:])
        none = level.mean + 3 * level.std
        flakes = np.clip(np.where(field >= none + u * (level.threshold - none), field, 0), 0, 1)
        weights = np.exp(-(np.arange(length + 1) ** 2) / (2 * max(u * level.fading, 1e-3) ** 2))
        streaks = np.zeros_like(flakes)
        for i, weight in enumerate(weights / weights.sum()):
            down = round(i * math.sin(-math.radians(drawn[0])))
            across = round(i * math.cos(math.radians(drawn[0])))
            rows = np.clip(np.arange(flakes.shape[0]) - down, 0, flakes.shape[0] - 1)
            columns = np.clip(np.arange(flakes.shape[1]) - across, 0, flakes.shape[1] - 1)
            streaks += weight * flakes[rows][:, columns]
        grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        share = 1 - u * (1 - level.brightness)
        bright = share * image + (1 - share) * np.maximum(image, 1.5 * grey + 0.5)
        out.append(np.clip(bright + streaks + streaks[::-1, ::-1], 0, 1) * 2 - 1)
    return torch.from_numpy(np.stack(out))


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_snow_is_its_definition_image_by_image(severity):
    process = snow(severity=severity)
    z = state(process, X0.double())
    for t in (1, 6, 10):
        expected = snowed(X0, z, t, 10, LEVELS[severity - 1], 3)
        torch.testing.assert_close(process.apply(X0.double(), z, t), expected, rtol=0, atol=1e-9)


def test_snow_stays_in_the_range_and_only_brightens():
    process = snow(severity=4, length=None)
    x = process.apply(X0.double(), state(process), process.T)
    assert x.max() <= 1
    assert (x - X0).min() > -1e-10


def test_the_field_of_flakes_has_the_levels_mean_and_falls_in_all_directions():
    ids = torch.arange(4000)
    level = LEVELS[2]
    z = snow().draw(torch.empty(len(ids), 1, 8, 8), RNG.at(10, ids))
    assert z[:, 0].min() >= -135
    assert z[:, 0].max() <= -45
    assert z[:, 0].mean().item() == pytest.approx(-90, abs=2)  # a standard error of 26 / sqrt(4000) = 0.41
    assert z[:, 1:].mean().item() == pytest.approx(level.mean, abs=0.01)
    corners = z[:, 1:].view(-1, 8, 8)[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.std().item() == pytest.approx(level.std, rel=0.03)  # drawn, not interpolated; 16,000: known to 0.6 %


# Snowfall

AUTHORS = {  # mean, zoom, length, threshold, sigma and brightness at both ends, from the authors' code
    1: (0.1, 3, 5, (0.7, 0.3), (0.5, 5), (0.95, 0.7)),
    2: (0.55, 2.5, 11, (1.15, 0.7), (0.05, 12), (0.95, 0.55)),
    3: (0.55, 2.5, 11, (1.15, 0.7), (0.05, 16), (0.95, 0.4)),
    4: (0.55, 2.5, 11, (1.15, 0.55), (0.05, 20), (0.95, 0.3)),
}


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("level", AUTHORS)
def test_snowfall_is_its_definition_in_scipy(level, whiten):
    process = snowfall(T=21, level=level, whiten=whiten)
    z = state(process, X0.double())
    assert 0 < z[:, 0].sum() < 5  # both directions
    _, _, length, *ramps = AUTHORS[level]
    for t in (1, 9, 21):
        threshold, sigma, brightness = (np.linspace(*ramp, 21)[t - 1] for ramp in ramps)
        weights = np.exp(-((np.arange(length) - length // 2) ** 2) / (2 * sigma**2))
        expected = []
        for image, drawn in zip((X0.double().numpy() + 1) / 2, z.numpy(), strict=True):
            field = drawn[1:].reshape(14, 11)
            flakes = np.clip(np.where(field < threshold, 0, field), 0, 1)
            axis = 0 if drawn[0] == 1 else 1
            flakes = ndimage.correlate1d(flakes, weights / weights.sum(), axis, mode="constant")
            white = np.maximum(image, 1.5 * np.tensordot([0.299, 0.587, 0.114], image, 1) + 0.5)
            bright = brightness * image + (1 - brightness) * white if whiten else image
            expected.append(np.clip(bright + flakes + np.rot90(flakes, 2), 0, 1) * 2 - 1)
        x_t = process.apply(X0.double(), z, t)
        torch.testing.assert_close(x_t, torch.from_numpy(np.stack(expected)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("side", "zoom"), [(32, 2.5), (128, 2.5), (28, 3), (8, 2.5)])
def test_flakes_are_enlarged_as_scipy_zooms(side, zoom):
    coarse = RNG.at(0, IDS).normal("coarse", (1, *[math.ceil(side / zoom)] * 2)).double()
    for small, field in zip(coarse.numpy(), enlarge(coarse, zoom, (side, side)), strict=True):
        large = ndimage.zoom(small[0], zoom, order=1)
        cut = (len(large) - side) // 2
        assert_same(field[0], torch.from_numpy(large[cut : cut + side, cut : cut + side].copy()))


# Fade and decolor


def test_fading_is_linear_in_time_and_ends_at_the_colour_to_the_bit():
    process = fade(colour=[0.1, -0.5, 1.0])
    z = state(process)
    colour = torch.tensor([0.1, -0.5, 1.0], dtype=torch.float64).view(1, 3, 1, 1)
    for t in range(8):
        assert_same(process.apply(X0.double(), z, t), X0 + t / 7 * (colour - X0))
    assert torch.equal(process.apply(X0, z, 7), colour.float().expand_as(X0))
    known = fade(colour=0.3, fitted=fit_statistics(fade(), [X0]), symmetry_noise=0.0)
    assert known.has_prior
    assert torch.equal(known.prior((3, 4, 4), RNG.at(7, IDS)), torch.full((5, 3, 4, 4), 0.3))


def test_colours_drain_linearly_into_their_mean_and_keep_it():
    process, x = ALL["decolor"], X0.double()
    mean = x.mean(1, keepdim=True)
    for t in range(10):
        expected = x + t / 9 * (mean - x)
        torch.testing.assert_close(process.apply(x, state(process), t), expected, rtol=0, atol=1e-12)
    assert torch.equal(process.apply(X0, state(process), 9), X0.mean(1, keepdim=True).expand_as(X0))


# What cannot be


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: blur(kernel=4), "process.kernel must be odd"),
        (lambda: blur(kernel=0), "process.kernel must be a positive integer"),
        (lambda: blur(sigma=0), "process.sigma must be greater than 0"),
        (lambda: blur(growth="quadratic"), "process.growth must be one of constant, linear, exponential"),
        (lambda: blur(rate=-0.5), "process.rate must be large enough that sigma stays above 0 for 6 steps"),
        (lambda: blur(padding="zeros"), "process.padding must be one of reflect, circular"),
        (lambda: blur(levels=1), "process.levels must be an integer of at least 2"),
        (lambda: blur(symmetry_noise=-1), "process.symmetry_noise must be a number at least 0"),
        (lambda: blur(kernel=31).apply(X0, state(blur()), 1), "process.kernel must be 27 or less for a side of 14"),
        (lambda: blur(rounding="up"), "process.rounding must be one of nearest, down"),
        (lambda: mask(rounding="down"), "process.rounding must be nearest if process.levels is null"),
        (lambda: mask(initial=0), "process.initial must be greater than 0"),
        (lambda: mask(shift=2), "process.shift must be an integer in 0..1"),
        (lambda: pixelate(cumulative=1), "process.cumulative must be true or false"),
        (lambda: mask(sigma_step=0), "process.sigma_step must be greater than 0"),
        (lambda: mask(center="top"), "process.center must be one of random, middle"),
        (lambda: mask(value=2), "process.value must be a number at least -1 and at most 1"),
        (lambda: pixelate(mode="nearest"), "process.mode must be one of area, bilinear, bicubic"),
        (lambda: snow(severity=6), r"process.severity must be an integer in 1..5, got 6"),
        (lambda: snow(length=0), "process.length must be a positive integer"),
        (lambda: snowfall(level=5), "process.level must be an integer in 1..4, got 5"),
        (lambda: snowfall(whiten=1), "process.whiten must be true or false"),
        (lambda: fade(colour=3), "process.colour must be a number at least -1 and at most 1"),
        (lambda: fade(colour=[0, 0]).apply(X0, X0[:, :0], 1), "process.colour must be one number, or one for each of"),
        (lambda: Decolor(schedule=Steps(3)).apply(X0[:, :1], X0, 1), "these have one channel: choose data with 3"),
        (lambda: Decolor(schedule=cosine(10, 0.008, 0.999)), "process=decolor defines .* choose schedule=steps"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
