"""Algorithms 1 and 2 of Cold Diffusion: exact where the theory says so, and one state along a trajectory."""

from dataclasses import dataclass

import pytest
import torch
from precision import assert_rounded, roundings

from ddpm.base.rng import Rng
from ddpm.base.types import Prediction
from ddpm.diffusion.degradations.animorph import PicturesAsNoise, animorph
from ddpm.diffusion.degradations.base import Degradation, HasFittedPrior, fit_statistics
from ddpm.diffusion.exact.oracle import GaussianOracle, OracleDenoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.objective import X0, Eps, V
from ddpm.diffusion.samplers import timestep_spacing
from ddpm.diffusion.samplers.ancestral import Ancestral
from ddpm.diffusion.samplers.cold import Cold, Naive
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.schedules.base import Steps
from ddpm.diffusion.schedules.curves import cosine
from ddpm.diffusion.variance import FixedSmall

RNG = Rng(3, "sample")
IDS = torch.arange(6)
SCHEDULE = cosine(200, 0.008, 0.999)
GAUSSIAN = GaussianDiffusion(SCHEDULE)
ORACLE = OracleDenoiser(GaussianOracle([0.3, -0.2], [[0.5, 0.2], [0.2, 0.4]]), SCHEDULE)


@dataclass(frozen=True, kw_only=True)
class TowardsPattern(Degradation):
    """x0 + (t / T)^power (z - x0), where z is a pattern of the sample's own; what is left at T is the pattern."""

    power: float = 1.0

    def draw(self, x0, draws):
        return draws.normal("pattern", tuple(x0.shape[1:])).to(x0.dtype)

    def apply(self, x0, z, t):
        share = torch.as_tensor(t / self.T, dtype=x0.dtype).view(-1, 1, 1, 1) ** self.power
        return x0 + share * (z - x0)


def towards_pattern(power=1.0, T=10):
    return TowardsPattern(schedule=Steps(T), power=power)


class Guess:
    """A restorer that is wrong in its own way at each call; all its beliefs are kept."""

    def __init__(self):
        self.beliefs = []

    def __call__(self, x_t, t, cond):
        self.beliefs.append(torch.sin(3 * x_t + t))
        return Prediction(self.beliefs[-1])


def images(num=6, dtype=torch.float64):
    return Rng(0, "test").at(0, torch.arange(num)).normal("image", (1, 4, 4)).to(dtype)


def degraded(process, x0, t, ids=IDS):
    z = process.draw(x0, RNG.at(process.T, ids))
    return process.apply(x0, z, t)


def end(sampler, denoiser, x, ids=IDS, start=None):
    return list(sampler.trajectory(denoiser, x, RNG, ids, start=start))[-1].x_t


# Algorithm 2


@pytest.mark.parametrize("steps", [1, 7, 50, None])
@pytest.mark.parametrize("start", [200, 130])
def test_on_gaussian_noise_algorithm_2_is_ddim_without_noise(steps, start):
    """Bansal et al. 2022, section 3.4: the noise is inferred from x_t and x0, and D(x0, z, t) is x_t itself."""
    x = Rng(0, "x").at(0, IDS).normal("x", (1, 1, 2)).double()
    cold = Cold(GAUSSIAN, timestep_spacing.uniform, steps).trajectory(ORACLE, x, RNG, IDS, start=start)
    ddim = DDIM(GAUSSIAN, timestep_spacing.uniform, steps, eta=0.0).trajectory(ORACLE, x, RNG, IDS, start=start)
    for one, other in zip(cold, ddim, strict=True):
        torch.testing.assert_close(one.x_t, other.x_t, rtol=0, atol=1e-12)


@pytest.mark.parametrize("start", [10, 6])
@pytest.mark.parametrize("steps", [None, 3])
def test_algorithm_2_is_exact_for_any_restorer_where_the_degradation_adds_a_line_in_t(start, steps):
    """Section 3.3: with D(x0, z, t) = x0 + (t / T) e every step gives D(x0, z, s), whatever the restorer says."""

    @dataclass(frozen=True, kw_only=True)
    class AddsPattern(TowardsPattern):
        def apply(self, x0, z, t):
            return x0 + t / self.T * z

    process = AddsPattern(schedule=Steps(10))
    x0 = images()
    states = Cold(process, timestep_spacing.uniform, steps).trajectory(
        Guess(), degraded(process, x0, start), RNG, IDS, start=start
    )
    for state in states:
        torch.testing.assert_close(state.x_t, degraded(process, x0, state.t), rtol=0, atol=1e-12)


def test_an_error_of_the_restorer_costs_algorithm_2_only_what_its_degradation_changes():
    """D is (1 - t / T) x0 + (t / T) z, so in a step from t to s an error d of x0 moves x_s by d (t - s) / T."""
    process, x0, wrong = towards_pattern(), images(), 0.3
    for sampler, share in ((Cold, 0.1), (Naive, 0.6)):  # from 5 to 4; algorithm 1 keeps all that D(., z, 4) does
        (first, *_) = sampler(process, timestep_spacing.uniform, None).trajectory(
            lambda x_t, t, cond: Prediction(x0 + wrong), degraded(process, x0, 5), RNG, IDS, start=5
        )
        torch.testing.assert_close(first.x_t, degraded(process, x0, 4) + share * wrong, rtol=0, atol=1e-12)


@pytest.mark.parametrize("power", [1.0, 2.5])
@pytest.mark.parametrize("sampler", [Cold, Naive])
def test_a_perfect_restorer_leads_back_to_the_image_along_its_degradations(sampler, power):
    process, x0 = towards_pattern(power), images()
    states = sampler(process, timestep_spacing.uniform, 4).trajectory(
        lambda x_t, t, cond: Prediction(x0), degraded(process, x0, 10), RNG, IDS
    )
    for state in states:
        torch.testing.assert_close(state.x_t, degraded(process, x0, state.t), rtol=0, atol=1e-12)


# Algorithm 1


def test_algorithm_1_ends_at_the_last_belief():
    process, guess = towards_pattern(2.5), Guess()
    made = end(Naive(process, timestep_spacing.uniform, None), guess, degraded(process, images(), 10))
    assert len(guess.beliefs) == 10
    assert torch.equal(made, guess.beliefs[-1])


def test_algorithm_1_shows_the_restorer_degraded_beliefs():
    process, guess, shown = towards_pattern(2.5), Guess(), []

    def watched(x_t, t, cond):
        shown.append((t, x_t))
        return guess(x_t, t, cond)

    list(Naive(process, timestep_spacing.uniform, None).trajectory(watched, degraded(process, images(), 10), RNG, IDS))
    for (t, x_t), belief in zip(shown[1:], guess.beliefs, strict=False):
        torch.testing.assert_close(x_t, degraded(process, belief, t), rtol=0, atol=1e-12)


def test_on_gaussian_noise_both_algorithms_are_one():
    x = Rng(0, "x").at(0, IDS).normal("x", (1, 1, 2)).double()
    one, other = (end(sampler(GAUSSIAN, timestep_spacing.uniform, 20), ORACLE, x) for sampler in (Cold, Naive))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


# One state along a trajectory


@pytest.mark.parametrize("sampler", [Cold, Naive])
def test_a_sample_depends_neither_on_its_neighbours_nor_on_its_place(sampler):
    process, x0 = towards_pattern(2.5), images()
    x = degraded(process, x0, 10)
    whole = end(sampler(process, timestep_spacing.uniform, None), Guess(), x)
    order = torch.tensor([4, 0, 5])
    some = end(sampler(process, timestep_spacing.uniform, None), Guess(), x[order], ids=IDS[order])
    assert torch.equal(some, whole[order])


@pytest.mark.parametrize("sampler", [Cold, Naive])
def test_the_state_is_drawn_once_by_the_samples_numbers_wherever_the_trajectory_begins(sampler):
    drawn = []

    @dataclass(frozen=True, kw_only=True)
    class Watched(TowardsPattern):
        def draw(self, x0, draws):
            drawn.append((draws.step, draws.ids.tolist()))
            return super().draw(x0, draws)

    process = Watched(schedule=Steps(10))
    for start in (10, 4):
        end(sampler(process, timestep_spacing.uniform, None), Guess(), images(), start=start)
    assert drawn == [(10, IDS.tolist())] * 2


# Animorphosis


def test_animorphosis_turns_an_image_into_one_of_the_others():
    others = torch.arange(5, dtype=torch.uint8).mul(50).view(5, 1, 1, 1).expand(5, 1, 4, 4).contiguous()
    process = animorph(Steps(200), SCHEDULE, others)
    x0 = images()
    z = process.draw(x0, RNG.at(200, IDS))
    levels = (z[:, 0, 0, 0] + 1) * 127.5 / 50
    assert (levels - levels.round()).abs().max() < roundings(4, scale=255 / 50)  # pixels of a picture are float32
    assert torch.equal(process.apply(x0, z, 0), x0)
    nothing_left = GaussianDiffusion(SCHEDULE).apply(x0, z, 200)
    assert torch.equal(process.apply(x0, z, 200), nothing_left)
    many = PicturesAsNoise(others)(RNG.at(0, torch.arange(10_000)), "noise", (1, 4, 4))[:, 0, 0, 0]
    shares = torch.bincount(((many + 1) * 127.5 / 50).round().long(), minlength=5) / 10_000
    assert (shares - 0.2).abs().max() < 5 * (0.2 * 0.8 / 10_000) ** 0.5


def test_others_of_another_shape_are_refused_by_name():
    with pytest.raises(ValueError, match=r"others must be images of the model's shape, \[1, 4, 4\], got \[3, 4, 4\]"):
        PicturesAsNoise(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))(RNG.at(0, IDS), "noise", (1, 4, 4))


# Images of nothing


@dataclass(frozen=True, kw_only=True)
class ToMean(HasFittedPrior):
    """A share t / T of each channel's mean."""

    def apply(self, x0, z, t):
        mean = x0.mean((2, 3), keepdim=True).expand_as(x0)
        return x0 + t / self.T * (mean - x0)

    def terminal_statistics(self, x_T):
        return x_T.mean((2, 3))

    def from_statistics(self, statistics, shape):
        return statistics[:, :, None, None].expand(-1, *shape).clone()


def test_the_prior_is_the_gaussian_fitted_to_what_is_left_of_the_training_images():
    mean, root = torch.tensor([0.5, -0.1, 0.2]), torch.tensor([[0.3, 0.0, 0.0], [0.2, 0.1, 0.0], [0.0, 0.1, 0.2]])
    x0 = (Rng(1, "data").at(0, torch.arange(4000)).normal("x", (3,)) @ root.T + mean)[:, :, None, None]
    x0 = x0 + torch.tensor([-0.3, 0.3]).view(1, 1, 1, 2)  # detail, which is lost
    process = ToMean(schedule=Steps(5), fitted=None, symmetry_noise=0.0)
    assert not process.has_prior
    fitted = fit_statistics(process, x0.split(1000))
    # n = 4000, of deviations up to 0.32: standard errors are 0.005 for a mean, 0.0023 for a covariance
    torch.testing.assert_close(torch.tensor(fitted["mean"]), mean, rtol=0, atol=0.03)
    torch.testing.assert_close(torch.tensor(fitted["covariance"]), root @ root.T, rtol=0, atol=0.01)
    for symmetry_noise in (0.0, 0.1):
        known = ToMean(schedule=Steps(5), fitted=fitted, symmetry_noise=symmetry_noise)
        assert known.has_prior
        drawn = known.prior((3, 1, 2), RNG.at(5, torch.arange(4000)))
        assert drawn.dtype == torch.float32
        channels = drawn.mean((2, 3))
        torch.testing.assert_close(channels.mean(0), mean, rtol=0, atol=0.03)
        expected = root @ root.T + torch.eye(3) * symmetry_noise**2 / 2
        torch.testing.assert_close(channels.T.cov(), expected, rtol=0, atol=0.01)
        assert abs(drawn.var(dim=(2, 3)).mean().sqrt() - symmetry_noise) < 0.003
    part = known.prior((3, 1, 2), RNG.at(5, torch.tensor([7, 3])))
    assert_rounded(part, drawn[[7, 3]], 2)  # drawn in float64 and rounded once


def test_where_nothing_was_fitted_the_error_says_what_can_be_done():
    with pytest.raises(ValueError, match="restore real images with task=restoration"):
        towards_pattern().prior((1, 4, 4), RNG.at(10, IDS))


def test_a_summary_that_is_a_picture_is_not_fitted():
    @dataclass(frozen=True, kw_only=True)
    class Kept(ToMean):
        def terminal_statistics(self, x_T):
            return x_T.flatten(1)

    assert fit_statistics(Kept(schedule=Steps(5), fitted=None, symmetry_noise=0.0), [torch.zeros(3, 1, 10, 10)]) is None


# What does not go together


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ancestral(towards_pattern(), timestep_spacing.uniform, None, FixedSmall()), "use sampler=cold"),
        (
            lambda: DDIM(towards_pattern(), timestep_spacing.uniform, None, 0.0),
            "needs process=gaussian, .* use sampler=cold",
        ),
        (lambda: Cold(towards_pattern(), timestep_spacing.uniform, 11), "steps must be an integer in 1..10, got 11"),
        (
            lambda: Cold(towards_pattern(), timestep_spacing.log_snr, None).times(10),
            "schedule=steps has times but no noise",
        ),
        (lambda: Eps(Steps(5)), "schedule=steps has times but no noise"),
        (lambda: V(Steps(5)), "schedule=steps has times but no noise"),
        (lambda: GaussianDiffusion(Steps(5)), "process=gaussian adds noise, and schedule=steps has none"),
        (lambda: TowardsPattern(schedule=SCHEDULE), "choose schedule=steps"),
        (
            lambda: ToMean(schedule=Steps(5), fitted=None, symmetry_noise=-1),
            "symmetry_noise must be a number at least 0",
        ),
        (lambda: Steps(0), "num_timesteps must be a positive integer, got 0"),
        (lambda: animorph(Steps(5), SCHEDULE, torch.zeros(1)), "mixing.num_timesteps must be .* 5, got 200"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_remedy(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_x0_needs_no_noise():
    assert X0(Steps(5)).schedule.T == 5
