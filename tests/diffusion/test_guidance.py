"""Guidance against data of which everything is known: p(y | x_t) in closed form, so the guided model is known too."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from densities import log_density
from diffusers.guiders import AutoGuidance, ClassifierFreeGuidance
from every_sampler import AFFINE_WITH_NOISE, WITHOUT_NOISE, made
from precision import assert_same
from torch import Tensor, nn

from ddpm.base.rng import Rng
from ddpm.base.types import Prediction
from ddpm.diffusion.binomial import BinomialDiffusion
from ddpm.diffusion.conditions.base import ClassLabel, NoCondition
from ddpm.diffusion.denoiser import DynamicThresholding, StaticThresholding
from ddpm.diffusion.exact.affine import Normal, output_distribution, wasserstein
from ddpm.diffusion.exact.oracle import GaussianOracle, MixtureOracle, OracleDenoiser, ring
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.guidance.classifier import ClassifierGuided
from ddpm.diffusion.guidance.difference import Autoguided, ClassifierFree, scale_at
from ddpm.diffusion.objective import X0, Eps, V
from ddpm.diffusion.samplers.base import State
from ddpm.diffusion.schedules.adjusted import zero_terminal_snr
from ddpm.diffusion.schedules.betas import linear
from ddpm.diffusion.variance import FixedLarge, FixedSmall, LearnedRange

SCHEDULE = linear(1000, 1e-4, 0.02, rescale=True)
PROCESS = GaussianDiffusion(SCHEDULE)
CLASSES = ClassLabel(num_classes=3, dropout=0.1)
POINTS = torch.tensor([[-2.0, 1.0], [0.5, 0.5], [1.5, -1.0]], dtype=torch.float64).view(3, 1, 1, 2)
LABELS = torch.tensor([2, 0, 1])


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_classifier(
    denoiser, classifier, scale=1.0, form="epsilon", at="x_t", denoiser_takes_label=False, process=PROCESS
):
    return ClassifierGuided(
        denoiser, classifier, process, scale, form, at, denoiser_takes_label, uses_guidance_gradient=form != "epsilon"
    )


def classifier_free(denoiser, scale, condition=CLASSES, **settings):
    return ClassifierFree(denoiser, condition, PROCESS, scale, **settings)


# What is known of Gaussian data of which one number is measured: y = DIRECTION . x0 + NOISE z

MEAN, COVARIANCE = np.array([0.3, -0.2]), np.array([[0.25, 0.1], [0.1, 0.16]])
DIRECTION, NOISE, MEASURED = np.array([1.0, -0.5]), 0.4, 0.9
DATA = OracleDenoiser(GaussianOracle(MEAN.tolist(), COVARIANCE.tolist()), SCHEDULE)


def gaussian_given_the_measurement():
    gain = COVARIANCE @ DIRECTION / (DIRECTION @ COVARIANCE @ DIRECTION + NOISE**2)
    covariance = COVARIANCE - np.outer(gain, DIRECTION @ COVARIANCE)
    mean = MEAN + gain * (MEASURED - DIRECTION @ MEAN)
    return GaussianOracle(mean.tolist(), ((covariance + covariance.T) / 2).tolist())


GIVEN = gaussian_given_the_measurement()


def measurement(x_t: Tensor, t: int) -> Tensor:
    """Logits of "y is about MEASURED" (0) and "it is not" (1): the chance is the density of y up to a factor.

    y | x_t is normal, as x0 | x_t is: of mean E[x0 | x_t] and covariance (COVARIANCE^-1 + snr)^-1.
    """
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    inverse = np.linalg.inv(COVARIANCE)
    spread = np.linalg.inv(inverse + alpha**2 / sigma**2 * np.eye(2))
    of_x_t, constant = (torch.from_numpy(a) for a in (alpha / sigma**2 * DIRECTION @ spread, spread @ inverse @ MEAN))
    y = x_t.flatten(1) @ of_x_t + float(DIRECTION @ constant.numpy())
    log_p = -((MEASURED - y) ** 2) / (2 * (DIRECTION @ spread @ DIRECTION + NOISE**2)) - 1
    return torch.stack([log_p, torch.log(-torch.expm1(log_p))], dim=1)


@dataclass(frozen=True)
class Asked:
    """A denoiser that is always asked for the class 0."""

    denoiser: ClassifierGuided

    def __call__(self, x_t, t, cond):
        return self.denoiser(x_t, t, {**cond, "label": torch.zeros(len(x_t), dtype=torch.int64)})


def guided(**settings):
    return Asked(by_classifier(DATA, measurement, **settings))


@pytest.mark.parametrize("t", [1, 30, 500, 1000])
def test_guidance_by_the_exact_likelihood_gives_the_denoiser_of_the_data_given_it(t):
    found = guided()(POINTS, t, {}).x0
    expected = OracleDenoiser(GIVEN, SCHEDULE)(POINTS, t, {}).x0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert (found - DATA(POINTS, t, {}).x0).abs().max() > 1e-5


@pytest.mark.parametrize("name", [*WITHOUT_NOISE, *AFFINE_WITH_NOISE])
def test_every_sampler_draws_from_the_data_given_what_is_asked(name):
    """The guided run has exactly the distribution of one with the conditional denoiser, however few the steps."""
    sampler = made(name, PROCESS, 12)
    found = output_distribution(sampler, guided(), GIVEN.shape)
    expected = output_distribution(sampler, OracleDenoiser(GIVEN, SCHEDULE), GIVEN.shape)
    torch.testing.assert_close(found.mean, expected.mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.covariance, expected.covariance, rtol=0, atol=1e-9)


TRUTH = Normal(torch.tensor(GIVEN.mean).double(), torch.tensor(GIVEN.covariance).double())


@pytest.mark.parametrize(("variance", "at"), [("small", "x_t"), ("small", "mean"), ("large", "mean")])
def test_the_mean_form_nears_the_closed_form_with_the_first_power_of_the_step(variance, at):
    steps, denoiser = [40, 80, 160], guided(form="mean", at=at)
    samplers = [made(f"ancestral_{variance}", PROCESS, number) for number in steps]
    errors = [wasserstein(output_distribution(each, denoiser, GIVEN.shape), TRUTH) for each in samplers]
    assert -np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(1, abs=0.25)


# The paper's algorithms in numpy, with a linear classifier

WEIGHT = normal(0, 3, 2)


def linear_classifier(x_t, t):
    return x_t.flatten(1) @ WEIGHT.T.to(x_t) * (t / 100)


def gradient_by_hand(x, t, labels):
    """Of log softmax(t / 100 W x)[label]: t / 100 (W[label] - sum of p W)."""
    logits = x.reshape(len(x), -1) @ WEIGHT.numpy().T * t / 100
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return ((WEIGHT.numpy()[labels] - p @ WEIGHT.numpy()) * t / 100).reshape(x.shape)


class Keyless:
    """Noise that is known."""

    def normal(self, stream, shape):
        return normal(7, len(POINTS), *shape)


@pytest.mark.parametrize("at", ["x_t", "mean"])
@pytest.mark.parametrize("variance", [FixedSmall(), FixedLarge(), LearnedRange()])
def test_a_step_is_that_of_algorithm_1(at, variance):
    """x_(t-1) ~ N(mu + scale Sigma gradient, Sigma), with mu from the clipped x0."""
    t, scale, place = 600, 3.0, normal(3, *POINTS.shape)
    x0 = DATA(POINTS, t, {}).x0

    class Network:
        def __call__(self, x_t, t, cond):
            assert "label" not in cond
            return Prediction(x0, place if isinstance(variance, LearnedRange) else None)

    beta = np.diff(SCHEDULE.alpha_bar.numpy()) / -SCHEDULE.alpha_bar.numpy()[:-1]  # beta_t at t - 1
    bar = SCHEDULE.alpha_bar.numpy()
    clipped = np.clip(x0.numpy(), -1, 1)
    mu = np.sqrt(bar[t - 1]) * beta[t - 1] / (1 - bar[t]) * clipped
    mu += np.sqrt(1 - beta[t - 1]) * (1 - bar[t - 1]) / (1 - bar[t]) * POINTS.numpy()
    small, large = beta[t - 1] * (1 - bar[t - 1]) / (1 - bar[t]), beta[t - 1]
    v = (place.numpy() + 1) / 2
    learned = np.exp(v * np.log(large) + (1 - v) * np.log(small))
    sigma = {FixedSmall: small, FixedLarge: large, LearnedRange: learned}[type(variance)]
    mu = mu + scale * sigma * gradient_by_hand(POINTS.numpy() if at == "x_t" else mu, t, LABELS.numpy())
    expected = mu + np.sqrt(sigma) * Keyless().normal("step", POINTS.shape[1:]).numpy()

    denoiser = by_classifier(StaticThresholding(Network()), linear_classifier, scale, form=None, at=at)
    assert denoiser.in_mean  # what null means with a sampler that follows a tilt
    sampler = replace(made("ancestral_small", PROCESS, 1000), variance=variance)
    found = sampler.step(denoiser, State(t, POINTS), t - 1, {"label": LABELS}, Keyless())
    np.testing.assert_allclose(found.x_t.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_a_step_is_that_of_algorithm_2():
    t, s, scale = 600, 400, 3.0
    bar = SCHEDULE.alpha_bar.numpy()
    eps = PROCESS.recover_noise(POINTS, DATA(POINTS, t, {}).x0, t).numpy()
    eps = eps - scale * np.sqrt(1 - bar[t]) * gradient_by_hand(POINTS.numpy(), t, LABELS.numpy())
    x0 = (POINTS.numpy() - np.sqrt(1 - bar[t]) * eps) / np.sqrt(bar[t])
    expected = np.sqrt(bar[s]) * x0 + np.sqrt(1 - bar[s]) * eps
    denoiser = ClassifierGuided(
        DATA, linear_classifier, PROCESS, scale, None, "x_t", False, uses_guidance_gradient=False
    )
    found = made("ddim", PROCESS, 5).step(denoiser, State(t, POINTS), s, {"label": LABELS}, None)
    np.testing.assert_allclose(found.x_t.numpy(), expected, rtol=1e-10)


def test_the_push_is_per_sample_where_times_are():
    times = torch.tensor([10, 500, 990])
    fixed = Fixed(POINTS)
    together = by_classifier(fixed, lambda x, t: linear_classifier(x, t[:, None].double()))
    found = together(POINTS, times, {"label": LABELS}).x0
    for k, t in enumerate(times.tolist()):
        alone = by_classifier(Fixed(POINTS[k : k + 1]), linear_classifier)
        each = alone(POINTS[k : k + 1], t, {"label": LABELS[k : k + 1]}).x0
        torch.testing.assert_close(found[k : k + 1], each, rtol=1e-10, atol=1e-12)


# Classes of a mixture: its parts

RING = ring(3, 0.75, 0.1)
PARTS = [MixtureOracle([center], RING.std) for center in RING.centers]


@dataclass
class Told:
    """The ideal network with classes: of a label it is told E[x0 | x_t, label], of -1 E[x0 | x_t]. Keeps its calls."""

    calls: list

    def __call__(self, x_t, t, cond):
        self.calls.append((x_t, t, dict(cond)))
        alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
        everything = [RING.x0(x_t, alpha, sigma), *(part.x0(x_t, alpha, sigma) for part in PARTS)]
        label = cond["label"] if "label" in cond else torch.full((len(x_t),), -1)
        return Prediction(torch.stack(everything)[label + 1, torch.arange(len(x_t))])


def which_part(x_t, t):
    """Logits of the parts: Bayes' rule on their densities."""
    return torch.stack([log_density(part, x_t, SCHEDULE.alpha(t), SCHEDULE.sigma(t)) for part in PARTS], dim=1)


TIMES = (20, 300, 900)
COND = {"label": LABELS}


@pytest.mark.parametrize("t", TIMES)
def test_guidance_by_the_exact_classifier_is_the_conditional_model(t):
    found = by_classifier(Told([]), which_part)(POINTS, t, COND).x0
    torch.testing.assert_close(found, Told([])(POINTS, t, COND).x0, rtol=0, atol=1e-10)


@pytest.mark.parametrize("scale", [0.5, 2.0, 7.5])
@pytest.mark.parametrize("t", TIMES)
def test_classifier_free_guidance_is_that_by_the_classifier_that_it_implies(t, scale):
    """By Bayes' rule; and a classifier beside a conditional model counts one more (Ho and Salimans 2022, sec. 3.2)."""
    free = classifier_free(Told([]), scale)(POINTS, t, COND).x0
    torch.testing.assert_close(by_classifier(Told([]), which_part, scale)(POINTS, t, COND).x0, free, rtol=0, atol=1e-9)
    if scale >= 1:
        beside = by_classifier(Told([]), which_part, scale - 1, denoiser_takes_label=True)(POINTS, t, COND).x0
        torch.testing.assert_close(beside, free, rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [0.0, 0.4, 1.0, 3.0])
@pytest.mark.parametrize("t", TIMES)
def test_classifier_free_guidance_follows_the_geometric_mixture(t, scale):
    """The score of p(x_t | y)^scale p(x_t)^(1 - scale), by differentiation of the densities."""
    x, at = POINTS.clone().requires_grad_(), (SCHEDULE.alpha(t), SCHEDULE.sigma(t))
    told = which_part(x, t).gather(1, LABELS[:, None]).sum()
    (scale * told + (1 - scale) * log_density(RING, x, *at).sum()).backward()
    found = PROCESS.score(POINTS, classifier_free(Told([]), scale)(POINTS, t, COND).x0, t)
    torch.testing.assert_close(found, x.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("scale", "labels"), [(1, LABELS), (0, torch.full_like(LABELS, -1))])
def test_scale_one_and_scale_zero_are_one_plain_call(scale, labels):
    network = Told([])
    found = classifier_free(network, scale, rescale=0.7)(POINTS, 300, COND).x0
    assert torch.equal(found, Told([])(POINTS, 300, {"label": labels}).x0)
    assert len(network.calls) == 1
    assert len(network.calls[0][0]) == len(POINTS)
    assert torch.equal(network.calls[0][2]["label"], labels)


@pytest.mark.parametrize("t", [300, torch.tensor([300, 20, 900])])
def test_both_branches_are_asked_in_one_call_of_twice_the_rows(t):
    calls = []

    def network(x_t, t, cond):
        calls.append((x_t, t, cond))
        return Prediction(x_t, torch.arange(len(x_t)).view(-1, 1, 1, 1))

    guess = normal(1, *POINTS.shape)
    prediction = classifier_free(network, 3.0)(POINTS, t, {"label": LABELS, "x0_guess": guess})
    ((x_t, times, cond),) = calls
    assert torch.equal(x_t, torch.cat([POINTS, POINTS]))
    assert times == t if isinstance(t, int) else torch.equal(times, torch.cat([t, t]))
    assert cond["label"].tolist() == [2, 0, 1, -1, -1, -1]
    assert torch.equal(cond["x0_guess"], torch.cat([guess, guess]))
    assert prediction.extra.flatten().tolist() == [0, 1, 2]  # a learned variance is that of the branch that was told


# Beside diffusers

IMAGES, OTHERS = normal(4, 3, 3, 8, 8), normal(5, 3, 3, 8, 8)


@dataclass(frozen=True)
class Fixed:
    """Predicts `x0` `[B, C, H, W]`, or `untold` where it is told nothing."""

    x0: Tensor
    untold: Tensor | None = None

    def __call__(self, x_t, t, cond):
        if self.untold is None:
            return Prediction(self.x0)
        num = len(self.x0)
        hidden = cond["label"].view(-1, 1, 1, 1) < 0
        rows = [k % num for k in range(len(x_t))]
        return Prediction(torch.where(hidden, self.untold[rows], self.x0[rows]))


@pytest.mark.parametrize("rescale", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("scale", [0.5, 3.0, 7.5])
def test_classifier_free_guidance_and_its_rescaling_are_those_of_diffusers(scale, rescale):
    theirs = ClassifierFreeGuidance(guidance_scale=scale, guidance_rescale=rescale).forward(IMAGES, OTHERS).pred
    found = classifier_free(Fixed(IMAGES, OTHERS), scale, rescale=rescale)(IMAGES, 500, COND).x0
    torch.testing.assert_close(found, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("objective", [Eps, V, X0])
@pytest.mark.parametrize("rescale", [0.3, 1.0])
def test_the_output_of_the_network_is_rescaled_as_in_diffusers(objective, rescale):
    """The guider of diffusers receives outputs, here eps, v or x0."""
    kind, x_t, t = objective(SCHEDULE), normal(6, 3, 3, 8, 8), 500
    theirs = ClassifierFreeGuidance(guidance_scale=5.0, guidance_rescale=rescale).forward(IMAGES, OTHERS).pred
    told, untold = (kind.to_x0(output, x_t, t) for output in (IMAGES, OTHERS))
    settings = {"rescale": rescale, "rescale_of": "output", "objective": kind}
    found = classifier_free(Fixed(told, untold), 5.0, **settings)(x_t, t, COND).x0
    torch.testing.assert_close(found, kind.to_x0(theirs, x_t, t), rtol=1e-10, atol=1e-10)
    of_x0 = classifier_free(Fixed(told, untold), 5.0, rescale=rescale)(x_t, t, COND).x0
    assert torch.allclose(found, of_x0) == (objective is X0)


def test_autoguidance_is_that_of_diffusers():
    theirs = AutoGuidance(2.5, auto_guidance_layers=["blocks"], dropout=0.1).forward(IMAGES, OTHERS).pred
    found = Autoguided(Fixed(IMAGES), Fixed(OTHERS), PROCESS, 2.5)(IMAGES, 500, COND).x0
    torch.testing.assert_close(found, theirs, rtol=1e-10, atol=1e-12)


def test_an_even_image_is_rescaled_to_itself():
    even = torch.full_like(IMAGES, -1.0)
    found = classifier_free(Fixed(even, even), 5.0, rescale=0.7)(IMAGES, 500, COND).x0
    assert_same(found, even)


# The interval


def noise_level(t):
    return SCHEDULE.sigma(t) / SCHEDULE.alpha(t)


@pytest.mark.parametrize("kind", ["classifier_free", "autoguidance"])
def test_outside_of_the_interval_there_is_no_guidance(kind):
    bounds = [noise_level(300) * 0.999, noise_level(600) * 1.001]
    if kind == "classifier_free":
        inside = classifier_free(Fixed(IMAGES, OTHERS), 3.0)
    else:
        inside = Autoguided(Fixed(IMAGES), Fixed(OTHERS), PROCESS, 3.0)
    limited, full = replace(inside, interval=bounds), inside(IMAGES, 300, COND).x0
    for t, guides in ((299, False), (300, True), (450, True), (600, True), (601, False)):
        assert torch.equal(limited(IMAGES, t, COND).x0, full if guides else IMAGES), t
    each = limited(IMAGES, torch.tensor([299, 450, 601]), COND).x0
    assert torch.equal(each[[0, 2]], IMAGES[[0, 2]])
    assert_same(each[1], full[1])


def test_outside_of_the_interval_the_other_branch_is_not_asked():
    network = Told([])
    classifier_free(network, 3.0, interval=[1e-6, 1e-5])(POINTS, 900, COND)
    assert [len(x_t) for x_t, _, _ in network.calls] == [3]
    Autoguided(Told([]), None, PROCESS, 3.0, interval=[1e-6, 1e-5])(POINTS, 900, COND)  # None cannot be asked


def test_an_interval_without_end_reaches_times_without_signal():
    schedule = zero_terminal_snr(1000, SCHEDULE)
    assert scale_at(3.0, [0.5, math.inf], schedule, 1000) == 3
    assert scale_at(3.0, [0.5, 100.0], schedule, 1000) == 1
    assert scale_at(3.0, [0.5, math.inf], schedule, torch.tensor([1, 1000])).tolist() == [1, 3]


# Autoguidance


def test_the_weaker_model_is_told_the_same():
    strong, weak = Told([]), Told([])
    found = Autoguided(strong, weak, PROCESS, 2.0)(POINTS, 300, COND).x0
    assert strong.calls[0][2]["label"] is weak.calls[0][2]["label"] is LABELS
    assert_same(found, Told([])(POINTS, 300, COND).x0)


def test_at_scale_one_the_weaker_model_is_not_asked():
    main = Fixed(IMAGES)
    assert Autoguided(main, None, PROCESS, 1.0)(IMAGES, 300, COND).x0 is IMAGES


# Order of the wrappers, by hand at single pixels


def pixel(*values):
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, -1)


def test_clipping_stands_within_or_around_classifier_free_guidance():
    network, x_t, cond = Fixed(pixel(0.9, 2.0), pixel(0.5, -3.0)), pixel(0.0, 0.0), {"label": torch.tensor([1])}
    around = StaticThresholding(classifier_free(network, 2.0))(x_t, 500, cond).x0
    within = classifier_free(StaticThresholding(network), 2.0)(x_t, 500, cond).x0
    assert_same(around, pixel(1.0, 1.0))  # 0.5 + 2 * 0.4 and -3 + 2 * 5, clipped
    assert_same(within, pixel(1.3, 3.0))  # the same, and -1 + 2 * 2, not clipped


def test_clipping_stands_within_or_around_classifier_guidance():
    """A gradient of 1 in the first pixel and none in the second: logits whose first is x[0] and its chance near 0."""
    network, x_t, cond, t = Fixed(pixel(2.0, -2.0)), pixel(0.0, 0.0), {"label": torch.tensor([0])}, 500

    def classifier(x_t, t):
        return torch.stack([x_t[:, 0, 0, 0] - 60, torch.zeros(len(x_t), dtype=x_t.dtype)], dim=1)

    push = SCHEDULE.sigma(t) ** 2 / SCHEDULE.alpha(t)
    assert push > 1
    within = by_classifier(StaticThresholding(network), classifier)(x_t, t, cond).x0
    around = StaticThresholding(by_classifier(network, classifier))(x_t, t, cond).x0
    assert_same(within, pixel(1 + push, -1.0))
    assert_same(around, pixel(1.0, -1.0))


@pytest.mark.parametrize("wrapped", [StaticThresholding, lambda inner: DynamicThresholding(inner, 0.995, 10.0)])
def test_a_wrapper_around_a_tilt_hands_it_on(wrapped):
    inner = by_classifier(DATA, linear_classifier, form="mean")
    guidance_gradient = wrapped(inner)(POINTS, 500, COND).guidance_gradient
    np.testing.assert_allclose(
        guidance_gradient(POINTS).numpy(), gradient_by_hand(POINTS.numpy(), 500, LABELS.numpy()), rtol=1e-9, atol=1e-12
    )


# What a sampler may rely on


class SmallNet(nn.Module):
    """Logits `[B, 3]`. Counts its forwards and backwards, and keeps the types that it saw."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(2, 8)
        self.last = nn.Linear(8, 3)
        self.forwards, self.backwards, self.seen = 0, 0, []

    def forward(self, x_t, t):
        self.forwards += 1
        self.seen.append((x_t.dtype, self.layer(x_t.flatten(1)).dtype))
        x_t.register_hook(self.count)
        return self.last(self.layer(x_t.flatten(1)).tanh())

    def count(self, gradient):
        self.backwards += 1


@pytest.mark.parametrize("form", ["epsilon", "mean"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_gradient_is_there_wherever_sampling_runs(form, mode):
    """Under Lightning's inference mode all of its tensors, the labels too, are such as have no gradient."""
    network = SmallNet()
    expected = run(by_classifier(DATA, network.double(), 2.0, form)).clone()
    with mode():
        found = run(by_classifier(DATA, network, 2.0, form), labels=LABELS + 0)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def run(denoiser, ids=(0, 1, 2), labels=LABELS, steps=5):
    """Samples by an ancestral sampler, from float64 noise."""
    sampler, ids = made("ancestral_small", PROCESS, steps), torch.tensor(ids)
    rng = Rng(0, "sample")
    x = PROCESS.prior(GIVEN.shape, rng.at(1000, ids)).double()
    *_, last = sampler.trajectory(denoiser, x, rng, ids, {"label": labels})
    return last.x_t


def test_times_made_in_inference_mode_may_reach_the_classifier():
    def classifier(x_t, t):
        return x_t.flatten(1) * t[:, None]  # keeps t for the backward

    def pushed(times):
        return by_classifier(Fixed(POINTS), classifier)(POINTS, times, {"label": LABELS % 2}).x0

    expected = pushed(torch.tensor([10, 500, 990]))
    with torch.inference_mode():
        assert torch.equal(pushed(torch.tensor([10, 500, 990])), expected)


@pytest.mark.parametrize("form", ["epsilon", "mean"])
def test_a_step_costs_one_forward_and_one_backward_of_the_classifier_and_none_of_the_denoiser(form):
    network = SmallNet().double()

    def denoiser(x_t, t, cond):
        assert not x_t.requires_grad
        return DATA(x_t, t, cond)

    run(by_classifier(denoiser, network, 2.0, form), steps=7)
    assert (network.forwards, network.backwards) == (7, 7)


def test_at_scale_zero_the_classifier_is_not_asked():
    assert torch.equal(run(by_classifier(DATA, None, 0.0, "mean")), run(DATA))


def test_the_gradient_is_in_float32_under_autocast():
    network = SmallNet()
    x = POINTS.bfloat16()
    guided = by_classifier(Fixed(x), network)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert guided(x, 500, COND).x0.dtype == torch.bfloat16
    assert network.seen == [(torch.float32, torch.float32)]


@pytest.mark.parametrize("form", ["epsilon", "mean"])
def test_a_sample_that_is_asked_for_no_class_is_not_pushed(form):
    some = torch.tensor([2, -1, 1])
    found, plain = run(by_classifier(DATA, which_part, 5.0, form), labels=some), run(DATA)
    torch.testing.assert_close(found[1], plain[1], rtol=0, atol=1e-12)
    assert (found[[0, 2]] - plain[[0, 2]]).abs().amin() > 1e-3


@pytest.mark.parametrize("kind", ["classifier_free", "autoguidance", "epsilon", "mean"])
def test_a_guided_sample_does_not_depend_on_its_companions(kind):
    denoiser = {
        "classifier_free": classifier_free(Told([]), 3.0, rescale=0.7, interval=[0.1, 5.0]),
        "autoguidance": Autoguided(Told([]), DATA, PROCESS, 2.0),
        "epsilon": by_classifier(DATA, which_part, 3.0, "epsilon"),
        "mean": by_classifier(DATA, which_part, 3.0, "mean", at="mean"),
    }[kind]
    together = run(denoiser)
    turned = run(denoiser, ids=(2, 0, 1), labels=LABELS[[2, 0, 1]])
    alone = run(denoiser, ids=(1,), labels=LABELS[1:2])
    torch.testing.assert_close(turned, together[[2, 0, 1]], rtol=0, atol=1e-12)
    torch.testing.assert_close(alone, together[1:2], rtol=0, atol=1e-12)


# What is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: classifier_free(DATA, 2.0, NoCondition()), "train it with cond=class"),
        (lambda: classifier_free(DATA, 2.0, ClassLabel(3, 0.0)), "cond.dropout=0.1"),
        (lambda: classifier_free(DATA, -1.0), "scale must be a number at least 0, got -1.0"),
        (lambda: classifier_free(DATA, "much"), "scale must be a number at least 0, got 'much'"),
        (lambda: classifier_free(DATA, 2.0, rescale=1.5), "rescale must be a number at least 0 and at most 1, got 1.5"),
        (lambda: classifier_free(DATA, 2.0, interval=3), "interval must be null or two noise levels"),
        (lambda: classifier_free(DATA, 2.0, interval=[5.0, 0.3]), r"interval must be \[low, high\] with low < high"),
        (lambda: classifier_free(DATA, 2.0, interval=[-1, 2]), "interval must be a number at least 0, got -1"),
        (lambda: Autoguided(DATA, DATA, PROCESS, -0.5), "scale must be a number at least 0, got -0.5"),
        (lambda: Autoguided(DATA, DATA, PROCESS, 2, interval=[1]), "interval must be null or two noise levels"),
        (lambda: by_classifier(DATA, which_part, -1.0), "scale must be a number at least 0, got -1.0"),
        (lambda: by_classifier(DATA, which_part, form="eps"), "form must be one of mean, epsilon, got 'eps'"),
        (lambda: by_classifier(DATA, which_part, at="x0", form="mean"), "at must be one of x_t, mean, got 'x0'"),
        (lambda: by_classifier(DATA, which_part, at="mean"), "guidance.at=mean has no effect"),
        (
            lambda: replace(by_classifier(DATA, which_part, form="mean"), uses_guidance_gradient=False),
            "guidance.form=mean moves the mean of an ancestral step, which this sampler does not make",
        ),
        (
            lambda: by_classifier(DATA, which_part, process=GaussianDiffusion(zero_terminal_snr(1000, SCHEDULE))),
            "guidance.form=epsilon cannot be used with a schedule without signal at T",
        ),
        (
            lambda: by_classifier(DATA, which_part, form="mean", process=BinomialDiffusion(SCHEDULE)),
            "guidance=classifier needs process=gaussian, not BinomialDiffusion",
        ),
    ],
)
def test_guidance_that_cannot_work_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_model_that_never_saw_the_unconditional_branch_may_be_asked_for_the_conditional_one():
    denoiser = classifier_free(Told([]), 1.0, ClassLabel(3, 0.0))
    assert torch.equal(denoiser(POINTS, 300, COND).x0, Told([])(POINTS, 300, COND).x0)


def test_classifier_guidance_without_a_class_says_so():
    with pytest.raises(ValueError, match="needs a class: choose class="):
        by_classifier(DATA, which_part)(POINTS, 300, {})
