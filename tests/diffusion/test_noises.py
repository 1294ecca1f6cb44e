"""Noise that is not white: what it equals, how its variance and its power are spread, and what it depends on."""

import dataclasses
import math

import opensimplex
import pytest
import torch
import torch.nn.functional as F
from precision import roundings

from ddpm.base.rng import Rng
from ddpm.diffusion.noises import open_simplex
from ddpm.diffusion.noises.base import WHITE, Offset
from ddpm.diffusion.noises.pyramid import Pyramid
from ddpm.diffusion.noises.simplex import Simplex

SIMPLEX = Simplex(octaves=6, persistence=0.8, frequency=64, unit_variance=True)
NOISES = {
    "simplex": SIMPLEX,
    "fine simplex": Simplex(octaves=3, persistence=0.5, frequency=2, unit_variance=False),
    "pyramid": Pyramid(discount=0.8, unit_variance=True),
    "offset": Offset(strength=0.5, unit_variance=True),
}
every_noise = pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
LATTICE = torch.tensor([[4, 1, 1], [1, 4, 1], [1, 1, 4]], dtype=torch.float64) / 3
"""From (i, j, k) to the place of a vertex."""


def drawn(noise, num, shape, *, seed=0, step=7, first=0, stream="noise"):
    return noise(Rng(seed, "test").at(step, torch.arange(first, first + num)), stream, shape)


def permutation(seed):
    """That of the reference, and the reference."""
    reference = opensimplex.OpenSimplex(seed)
    return torch.tensor(reference._perm.astype("int64")), reference


def places(num, seed=0):
    return 200 * torch.rand(num, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 100


def at_places(permuted, points, dtype=torch.float64):
    """Noise at single points, as images of one pixel."""
    return open_simplex.planes(permuted.expand(len(points), -1), points, 1.0, (1, 1), dtype)[:, 0, 0]


def gradient(vertex, permuted):
    """Of one vertex of integers: three look-ups, then one of the permutations of (+-11, +-4, +-4), as published."""
    i, j, k = (int(number) for number in vertex)
    number = int(permuted[(permuted[(permuted[i & 255] + j) & 255] + k) & 255]) % 24
    signs = [-1, 1, 1] if number // 3 % 2 == 0 else [1, 1, 1]
    signs[1] = -1 if number // 6 % 2 else 1
    signs[2] = -1 if number // 12 else 1
    return torch.tensor([sign * (11 if axis == number % 3 else 4) for axis, sign in enumerate(signs)]).double()


def sum_over_vertices(point, permuted):
    """The definition: all vertices of a large box around the point."""
    nearest = (point @ LATTICE.inverse()).round()
    box = nearest + torch.cartesian_prod(*[torch.arange(-4.0, 5.0, dtype=torch.float64)] * 3)
    away = point - box @ LATTICE
    left = (2 - away.square().sum(1)).clamp(min=0)
    return sum(left[n] ** 4 * gradient(box[n], permuted) @ away[n] for n in left.nonzero()[:, 0]) / 103


def test_simplex_noise_is_the_sum_over_all_vertices_within_reach():
    permuted, _ = permutation(5)
    points = places(60)
    expected = torch.stack([sum_over_vertices(point, permuted) for point in points])
    assert (at_places(permuted, points) - expected).abs().max() < 1e-12


def test_simplex_noise_is_that_of_the_opensimplex_package():
    """To rounding at most places; at the others the package leaves out a vertex that adds up to 1.3e-4."""
    permuted, reference = permutation(7)
    points = places(3000)
    theirs = torch.tensor([reference.noise3(*point) for point in points.tolist()], dtype=torch.float64)
    apart = (at_places(permuted, points) - theirs).abs()
    assert (apart < 1e-12).double().mean() > 0.95
    assert apart.max() < 2e-4
    apart = (at_places(permuted, points, torch.float32) - theirs).abs()
    assert (apart < roundings(8)).double().mean() > 0.95


@pytest.mark.parametrize("step", [1 / 64, 0.37, 0.5, 1.9, 16.0])
@pytest.mark.parametrize("size", [(9, 14), (14, 9), (1, 12), (12, 1)])
def test_a_plane_of_pixels_is_the_noise_of_each_of_its_places(step, size):
    """Whether its vertices are asked once or by each pixel."""
    permuted, _ = permutation(3)
    origins = places(2, seed=1)
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij")
    offsets = step * torch.stack([columns, rows, torch.zeros_like(rows)], dim=-1)
    expected = at_places(permuted, (origins[:, None, None] + offsets).reshape(-1, 3)).view(2, *size)
    exact = open_simplex.planes(permuted.expand(2, -1), origins, step, size, torch.float64)
    single = open_simplex.planes(permuted.expand(2, -1), origins, step, size, torch.float32)
    assert (exact - expected).abs().max() < 1e-12
    assert (single - expected).abs().max() < roundings(8)


def test_the_variance_of_one_octave_is_the_stated_one():
    """Of 2.6 million places 3.7 units apart: errors are 0.0003 for the mean and 0.1 % for the variance."""
    one = Simplex(octaves=1, persistence=1.0, frequency=1 / 3.7, unit_variance=False)
    noise = drawn(one, 640, (1, 64, 64)).double()
    assert noise.mean().abs() < 5 * 0.0003
    assert noise.square().mean().item() == pytest.approx(open_simplex.VARIANCE, rel=0.005)
    assert pytest.approx(0.0985, abs=5e-5) == open_simplex.VARIANCE


def test_the_noise_of_anoddpm_is_half_as_strong_as_white_noise():
    theirs = dataclasses.replace(SIMPLEX, unit_variance=False)
    noise = drawn(theirs, 60, (1, 64, 64))
    assert sum(0.8**i for i in range(6)) == pytest.approx(3.689, abs=1e-3)
    assert theirs.std == pytest.approx(0.50, abs=0.01)
    assert 1.2 < noise.abs().max() < 2.3
    assert torch.equal(noise / theirs.std, drawn(SIMPLEX, 60, (1, 64, 64)))


@every_noise
def test_every_pixel_has_mean_zero_and_the_stated_variance(noise):
    """Of 3000 images, at two corners, a border and the middle: errors are 0.018 for a mean, 0.026 for a variance."""
    pixels = drawn(noise, 3000, (1, 6, 9))[:, 0, [0, 0, 5, 3], [0, 8, 8, 4]].double()
    std = noise.std if isinstance(noise, Simplex) and not noise.unit_variance else 1.0
    assert (pixels.mean(0) / std).abs().max() < 5 * 0.018
    assert (pixels.var(0) / std**2 - 1).abs().max() < 5 * 0.026


@every_noise
def test_the_noise_of_a_sample_depends_on_its_draws_alone(noise):
    shape = (2, 12, 20)
    batch = drawn(noise, 9, shape)
    assert batch.shape == (9, *shape)
    assert batch.dtype == torch.float32
    assert torch.equal(drawn(noise, 1, shape, first=5), batch[5:6])
    assert torch.equal(drawn(noise, 9, shape), batch)
    others = [{"seed": 1}, {"step": 8}, {"stream": "prior"}, {"first": 9}]
    assert all((drawn(noise, 9, shape, **other) != batch).flatten(1).any(1).all() for other in others)


@every_noise
def test_channels_and_images_are_independent(noise):
    """The means of images, which tell of long waves, of 800 images and 3 channels: errors of correlations are 0.035."""
    means = drawn(noise, 800, (3, 8, 8)).mean((2, 3)).T.double()
    channels = torch.corrcoef(means) - torch.eye(3)
    images = torch.corrcoef(torch.stack([means[0, :-1], means[0, 1:]]))[0, 1]
    assert channels.abs().max() < 5 * 0.035
    assert images.abs() < 5 * 0.035


def spectrum(noise, num=200, size=64):
    """Mean power by wave number 0..size/2 along a row (Hann window, which keeps neighbouring ones apart)."""
    rows = drawn(noise, num, (1, size, size))[:, 0].double() * torch.hann_window(size, dtype=torch.float64)
    power = torch.fft.rfft(rows).abs().square().mean((0, 1))
    return power / power.sum()


@pytest.mark.parametrize("wavelength", [8, 16])
def test_an_octave_has_its_power_below_twice_its_wave_number(wavelength):
    """And one of half the wavelength has it twice as high."""
    octave = Simplex(octaves=1, persistence=0.8, frequency=wavelength, unit_variance=True)
    power, finer = (spectrum(dataclasses.replace(octave, frequency=pixels)) for pixels in (wavelength, wavelength / 2))
    assert power[2 * 64 // wavelength :].sum() < 0.02
    numbers = torch.arange(len(power))
    assert (finer @ numbers.double() / (power @ numbers.double())).item() == pytest.approx(2, rel=0.1)


def test_the_power_of_simplex_noise_falls_with_frequency_and_white_noise_is_flat():
    power, white = spectrum(SIMPLEX), spectrum(WHITE)
    bands = [slice(2, 4), slice(4, 8), slice(8, 16), slice(16, 32)]
    simplex_means, white_means = ([each[band].mean().item() for band in bands] for each in (power, white))
    assert simplex_means == sorted(simplex_means, reverse=True)
    assert simplex_means[0] > 20 * simplex_means[-1]
    assert max(white_means) / min(white_means) < 1.1


@pytest.mark.parametrize("unit_variance", [True, False])
def test_two_pixels_under_offset_noise_share_the_square_of_its_strength(unit_variance):
    """Of 20,000 images: the error of a covariance is 0.011."""
    noise = drawn(Offset(0.7, unit_variance), 20_000, (1, 2, 3)).flatten(1).double()
    expected = torch.eye(6).double() + 0.7**2
    assert (torch.cov(noise.T) - (expected / 1.49 if unit_variance else expected)).abs().max() < 5 * 0.011


@pytest.mark.parametrize("unit_variance", [True, False])
def test_pyramid_noise_has_the_covariance_of_its_enlarged_levels(unit_variance):
    """From torch's own interpolation of every single number of every level; 20,000 images, errors of 0.025."""
    size, discount = (4, 7), 0.6
    expected = torch.eye(28, dtype=torch.float64)
    for level, small in enumerate([(2, 3), (1, 1)], start=1):
        units = torch.eye(math.prod(small), dtype=torch.float64).view(-1, 1, *small)
        enlarged = F.interpolate(units, size=size, mode="bilinear").flatten(1)
        expected += discount ** (2 * level) * enlarged.T @ enlarged
    if unit_variance:
        expected /= expected.diag().sqrt().outer(expected.diag().sqrt())
    noise = drawn(Pyramid(discount, unit_variance), 20_000, (1, *size)).flatten(1).double()
    assert (torch.cov(noise.T) - expected).abs().max() < 5 * 0.025


def test_without_strength_or_discount_noise_is_white():
    white = drawn(WHITE, 3, (2, 8, 8))
    for noise in (Offset(0.0, True), Pyramid(0.0, True), Offset(0.0, False)):
        assert torch.equal(drawn(noise, 3, (2, 8, 8)), white)


@pytest.mark.parametrize(
    ("noise", "changes", "message"),
    [
        ("simplex", {"octaves": 0}, "octaves must be an integer in 1..16, got 0"),
        ("simplex", {"octaves": 2.5}, "octaves must be an integer"),
        ("simplex", {"persistence": 0}, "persistence must be greater than 0"),
        ("simplex", {"frequency": -1}, "frequency must be greater than 0"),
        ("simplex", {"frequency": "fast"}, "frequency must be a number"),
        ("simplex", {"unit_variance": 1}, "unit_variance must be true or false"),
        ("pyramid", {"discount": 1.5}, "discount must be a number at least 0 and at most 1"),
        ("pyramid", {"unit_variance": "yes"}, "unit_variance must be true or false"),
        ("offset", {"strength": -0.1}, "strength must be a number at least 0"),
        ("offset", {"unit_variance": None}, "unit_variance must be true or false"),
    ],
)
def test_a_field_that_cannot_be_is_named(noise, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(NOISES[noise], **changes)
