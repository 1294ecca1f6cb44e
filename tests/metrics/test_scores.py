"""Scores against closed forms and against torch-fidelity and torchmetrics, without a network."""

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from precision import assert_same, roundings
from small_features import features, gaussian_features, moments, normal
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance

from ddpm.metrics.extractors.preprocess import pixel_features
from ddpm.metrics.fid import (
    FrechetDistance,
    FrechetInfinity,
    frechet_distance,
    multinomial_weights,
    resampled_distances,
)
from ddpm.metrics.inception_score import InceptionScore
from ddpm.metrics.kid import KernelDistance, error_of_mean
from ddpm.metrics.memorization import Memorization
from ddpm.metrics.neighbours import k_nearest
from ddpm.metrics.prdc import ClassCoverage, PrecisionRecall
from ddpm.metrics.score import FeatureSet, Moments


def random_moments(d, seed):
    make = torch.Generator().manual_seed(seed)
    root = torch.randn(d, d, generator=make, dtype=torch.float64)
    return torch.randn(d, generator=make, dtype=torch.float64), root @ root.T / d + 0.1 * torch.eye(d)


# Frechet distance


def frechet(real, generated):
    return frechet_distance(moments(real), moments(generated))


def test_frechet_distance_of_gaussians_is_the_closed_form():
    (m1, s1), (m2, s2) = random_moments(8, 1), random_moments(8, 2)
    root = torch.from_numpy(scipy.linalg.sqrtm((s1 @ s2).numpy()).real)
    expected = ((m1 - m2) ** 2).sum() + torch.trace(s1 + s2 - 2 * root)
    real, generated = gaussian_features(m1, s1, 300, 3), gaussian_features(m2, s2, 200, 4)
    assert frechet(real, generated) == pytest.approx(expected.item(), rel=1e-9)
    assert frechet(generated, real) == pytest.approx(expected.item(), rel=1e-9)


def test_frechet_distance_in_one_dimension_is_that_of_means_and_deviations():
    one = torch.tensor([1.0], dtype=torch.float64)
    real, generated = gaussian_features(0 * one, one[None], 50, 5), gaussian_features(3 * one, 4 * one[None], 40, 6)
    assert frechet(real, generated) == pytest.approx(3**2 + (1 - 2) ** 2, rel=1e-9)


def test_frechet_distance_of_a_drawn_gaussian_tends_to_that_of_its_parameters():
    """100,000 draws of d = 6, covariances that do not commute. The bias is of order d / n; the error bar says more."""
    (m1, s1), (m2, s2) = random_moments(6, 1), random_moments(6, 2)
    root = torch.from_numpy(scipy.linalg.sqrtm((s1 @ s2).numpy()).real)
    expected = (((m1 - m2) ** 2).sum() + torch.trace(s1 + s2 - 2 * root)).item()
    drawn = normal(100_000, 6, 3).double() @ torch.linalg.cholesky(s2).T + m2
    real = FeatureSet(100_000, Moments(100_000, m1, s1))
    found = FrechetDistance(num_resamples=20)(real, features(drawn))["fid"]
    assert found.value == pytest.approx(expected, abs=4 * found.error + 1e-3)
    assert 0 < found.error < 0.05 * expected


@pytest.mark.parametrize(("n", "d"), [(50, 8), (20, 64)], ids=["full rank", "fewer images than features"])
def test_frechet_distance_is_symmetric_and_of_a_set_to_itself_zero(n, d):
    one, other = normal(n, d, 0), normal(n + 3, d, 1, mean=0.1)
    assert frechet(one, one) == pytest.approx(0, abs=1e-8 * d)
    assert frechet(one, other) == pytest.approx(frechet(other, one), rel=1e-9)
    assert math.isfinite(frechet(one, other))


def test_frechet_distance_agrees_with_torch_fidelity_and_torchmetrics():
    real, generated = normal(300, 16, 0), normal(200, 16, 1, mean=0.2, spread=1.3)
    value = frechet(real, generated)
    statistics = [fid_features_to_statistics(rows.double()) for rows in (generated, real)]
    their = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert value == pytest.approx(their, rel=1e-10)
    network = torch.nn.Identity()
    network.num_features = 16
    metric = FrechetInceptionDistance(feature=network).set_dtype(torch.float64)
    for rows, is_real in ((real, True), (generated, False)):
        metric.update(rows.double(), real=is_real)
    assert value == pytest.approx(metric.compute().item(), rel=1e-10)


@pytest.mark.parametrize("d", [3, 40])
def test_a_resample_is_measured_as_the_images_it_consists_of(d):
    real, rows = normal(100, d, 0), normal(33, d, 1, mean=0.3)
    weights = multinomial_weights(4, 33)
    assert weights.sum(1).tolist() == [33] * 4
    for weight, distance in zip(weights, resampled_distances(moments(real), rows, weights), strict=True):
        drawn = rows[torch.arange(33).repeat_interleave(weight.long())]
        assert distance.item() == pytest.approx(frechet(real, drawn), rel=roundings(100))  # a root of float32 products


def test_the_error_bar_of_frechet_distance_is_its_spread_over_draws():
    """Standard deviation over 200 draws of 500 images, known to 5 %; a bootstrap of 400, its own noise of 4 %."""
    reference = features(normal(5000, 4, 0))
    values = [frechet(reference.rows, normal(500, 4, 10 + seed, mean=0.5)) for seed in range(200)]
    found = FrechetDistance(num_resamples=400)(reference, features(normal(500, 4, 9, mean=0.5)))["fid"]
    assert found.error == pytest.approx(np.std(values), rel=0.2)


def test_frechet_infinity_takes_the_bias_of_few_images_away():
    """In d = 32, 2,000 images of the reference's own distribution: about d (d + 3) / 8 n = 0.07 of bias, all else 0."""
    d = 32
    reference = FeatureSet(10**6, Moments(10**6, torch.zeros(d).double(), torch.eye(d).double()))
    generated = features(normal(2000, d, 0))
    biased = FrechetDistance(num_resamples=0)(reference, generated)["fid"].value
    found = FrechetInfinity()(reference, generated)["fid_inf"]
    assert biased > 0.05
    assert abs(found.value) < 0.2 * biased
    assert 0 < found.error < 0.5 * biased


def test_frechet_distance_keeps_no_images_unless_it_resamples():
    assert not FrechetDistance(num_resamples=0).rows_of_generated
    assert FrechetDistance(num_resamples=0)(*[features(normal(9, 2, s)) for s in (0, 1)])["fid"].error is None


# Inception score


def inception_score(logits):
    return {name: estimate.value for name, estimate in InceptionScore()(None, features(logits)).items()}


def test_inception_score_of_sure_and_of_blind_classifiers():
    values = inception_score(100 * torch.eye(100))
    assert values["is"] == pytest.approx(10, rel=1e-9)  # ten parts of ten images, each sure, each of another class
    assert values["is_std"] == pytest.approx(0, abs=1e-9)
    blind = InceptionScore()(None, features(normal(1, 20, 0).expand(50, -1)))["is"]  # all images look alike
    assert (blind.value, blind.error) == (pytest.approx(1, abs=1e-9), pytest.approx(0, abs=1e-9))


def test_inception_score_of_one_part_after_another_is_the_formula():
    """Every part is alike (ten copies), so the shuffle does not matter: exp of the mean KL, written out."""
    p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    parts = torch.stack([p, p.roll(1), p.roll(2)])  # their mean is uniform
    expected = math.exp(math.log(3) + (p * p.log()).sum().item())
    # 3 * 20,000 images: each part's mix of the three is even to 1 %, and the score is flat in the mix at even
    assert inception_score(parts.log().repeat(20_000, 1))["is"] == pytest.approx(expected, rel=1e-3)


def test_inception_score_is_torch_fidelitys_and_its_error_bar_the_spread_over_draws():
    """200 draws of 400 images; the parts are too small for the bootstrap to be exact: to a quarter."""
    draws = [2 * normal(400, 7, seed) for seed in range(200)]
    values = [isc_features_to_metric(logits)["inception_score_mean"] for logits in draws]
    found = InceptionScore(num_resamples=200)(None, features(draws[0]))["is"]
    assert found.value == pytest.approx(values[0], rel=1e-9)
    assert found.error == pytest.approx(np.std(values), rel=0.25)


def test_a_resample_that_is_the_images_themselves_has_their_score(monkeypatch):
    monkeypatch.setattr(
        "ddpm.metrics.inception_score.multinomial_weights", lambda r, n, seed: torch.ones(r, n).double()
    )
    logits = 2 * normal(57, 7, 0)
    assert InceptionScore().resampled(logits)[0].item() == pytest.approx(inception_score(logits)["is"], rel=1e-9)


# Kernel distance


def test_kernel_distance_is_torch_fidelitys():
    real, generated = normal(300, 16, 0), normal(200, 16, 1, mean=0.2)
    their = kid_features_to_metric(generated, real, kid_subsets=20, kid_subset_size=100, verbose=False)
    found = KernelDistance(num_subsets=20)(features(real), features(generated))["kid"]
    assert found.value == pytest.approx(their["kernel_inception_distance_mean"], rel=1e-9)


def test_kernel_distance_is_the_closed_form_of_the_polynomial_kernel():
    """In one dimension E (xy + 1)^3 is a polynomial in moments: 1 + 3 m m' + 3 s s' + k k' with raw moments 1, 2, 3."""
    raw = {0.0: (0, 1, 0), 0.5: (0.5, 1.25, 1.625)}  # of N(m, 1): m, m^2 + 1, m^3 + 3 m

    def kernel(a, b):
        return 1 + 3 * raw[a][0] * raw[b][0] + 3 * raw[a][1] * raw[b][1] + raw[a][2] * raw[b][2]

    expected = kernel(0.0, 0.0) + kernel(0.5, 0.5) - 2 * kernel(0.0, 0.5)
    found = KernelDistance()(features(normal(20_000, 1, 0)), features(normal(20_000, 1, 1, mean=0.5)))["kid"]
    assert found.value == pytest.approx(expected, abs=4 * found.error)
    assert found.error < 0.1 * expected


def test_the_error_bar_of_kernel_distance_is_its_spread_over_draws():
    """100 draws: their spread is known to 7 %. The smaller of the two sets counts, so the bar is not too small."""
    real = features(normal(20_000, 4, 0))
    score = KernelDistance(num_subsets=50, subset_size=100)
    found = [score(real, features(normal(1000, 4, 10 + seed, mean=0.5)))["kid"] for seed in range(100)]
    spread = np.std([each.value for each in found])
    assert 0.8 * spread < np.mean([each.error for each in found]) < 2 * spread


def test_the_error_of_a_mean_over_subsets_is_that_of_the_mean_over_images_where_these_are_averages():
    """Of s^2 = 4, n = 1,000: subsets of 100 spread by sqrt(4 (1/100 - 1/1000)); very many leave sqrt(4 / 1000)."""
    assert error_of_mean(math.sqrt(4 * (1 / 100 - 1 / 1000)), 10**9, 100, 1000) == pytest.approx(math.sqrt(4 / 1000))


# Precision, recall, density, coverage


def test_precision_and_recall_are_torch_fidelitys():
    real, generated = normal(500, 8, 0), normal(400, 8, 1, mean=0.7, spread=0.8)
    their = prc_features_to_metric(generated, real, prc_neighborhood=3, prc_batch_size=100, save_cpu_ram=False,
                                   verbose=False)  # fmt: skip
    found = PrecisionRecall()(features(real), features(generated))
    assert found["precision"].value == pytest.approx(their["precision"], rel=roundings(1))
    assert found["recall"].value == pytest.approx(their["recall"], rel=roundings(1))


def test_density_and_coverage_are_their_definitions_written_out():
    real, generated = normal(60, 3, 0), normal(50, 3, 1, mean=0.5)
    found = PrecisionRecall(k_coverage=5)(features(real), features(generated))
    distance = torch.cdist(real.double(), real.double()).sort(1).values[:, 5]
    inside = torch.cdist(real.double(), generated.double()) < distance[:, None]
    assert found["density"].value == pytest.approx(inside.sum().item() / (5 * 50))
    assert found["coverage"].value == pytest.approx(inside.any(1).double().mean().item())


def test_images_of_the_data_have_all_of_precision_and_recall_and_far_ones_none():
    real = normal(100, 4, 0)
    same, far = (PrecisionRecall()(features(real), features(rows)) for rows in (real, real + 100))
    assert [same[name].value for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    assert [far[name].value for name in ("precision", "recall", "density", "coverage")] == [0, 0, 0, 0]


@pytest.mark.parametrize("width", [4, 192])
@pytest.mark.parametrize("place", [0, 1000])
def test_exact_copies_have_density_one(width, place):
    """Each ball holds the copies of its centre and of the 4 nearest images. The fifth lies on its border."""
    real = normal(300, width, 0) + place
    copies = PrecisionRecall()(features(real), features(real.clone()))
    assert [copies[name].value for name in ("precision", "recall", "density", "coverage")] == [1, 1, 1, 1]
    closed = PrecisionRecall(ball_coverage="closed")(features(real), features(real.clone()))
    assert closed["density"].value == pytest.approx(6 / 5)


def test_balls_without_a_radius_hold_copies_if_they_are_closed():
    """Each image is there 6 times, so the radius to its 3rd and 5th neighbour is 0."""
    real = normal(50, 64, 0).repeat(6, 1)
    found = PrecisionRecall()(features(real), features(real[:100]))
    assert [found[name].value for name in ("precision", "density", "coverage")] == [1, 0, 0]
    opened = PrecisionRecall(ball="open", ball_coverage="closed")(features(real), features(real[:100]))
    assert [opened[name].value for name in ("precision", "recall", "density", "coverage")] == [0, 1, 6 / 5, 1]


def test_a_score_names_its_balls():
    assert "ball=closed, ball_coverage=open" in PrecisionRecall().describe()
    assert "ball=open" in ClassCoverage().describe()
    with pytest.raises(ValueError, match="ball must be one of closed, open, got 'round'"):
        PrecisionRecall(ball="round")


def test_a_forgotten_class_shows_in_its_coverage():
    labels = torch.arange(300) % 3
    real = normal(300, 2, 0) + 50 * labels[:, None]
    found = ClassCoverage()(features(real, labels), features(real[labels != 2] + 0.01))
    assert found["coverage_of_0"].value > 0.9
    assert found["coverage_of_1"].value > 0.9
    assert found["coverage_of_2"].value == 0 == found["coverage_worst"].value
    with pytest.raises(ValueError, match="needs labels"):
        ClassCoverage()(features(real), features(real))


# Neighbours and copies


@pytest.mark.parametrize("chunk", [7, 2048])
def test_nearest_neighbours_are_those_of_all_distances(monkeypatch, chunk):
    monkeypatch.setattr("ddpm.metrics.neighbours.CHUNK", chunk)
    rows, among = normal(40, 5, 0).double(), normal(60, 5, 1).double()
    expected, order = torch.cdist(rows, among).sort(1)
    distances, index = k_nearest(rows, among, 3)
    assert_same(distances, expected[:, :3])
    assert torch.equal(index, order[:, :3])
    others, own = k_nearest(rows, rows, 1, leave_out_self=True)
    assert_same(others[:, 0], torch.cdist(rows, rows).fill_diagonal_(math.inf).min(1).values)
    assert not (own[:, 0] == torch.arange(40)).any()


def test_copies_of_training_images_are_counted_and_new_images_are_not():
    real = normal(400, 20, 0)
    generated = torch.cat([real[:30] + 1e-3, normal(70, 20, 1)])
    found = Memorization()(features(real), features(generated))
    assert found["memorized_pixels"].value == 0.3
    assert found["memorized_pixels"].error == pytest.approx(math.sqrt(0.3 * 0.7 / 99), rel=1e-12)
    new = Memorization()(features(real), features(normal(400, 20, 2)))
    assert new["memorized_pixels"].value == 0
    assert new["nearest_ratio_pixels"].value == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("size", [(28, 28), (32, 20), (8, 32)])
def test_distances_of_small_images_are_those_of_their_pixels(size):
    one, other = (torch.randint(256, (1, 3, *size), generator=torch.Generator().manual_seed(s)).byte() for s in (0, 1))
    expected = (one.double() - other.double()).norm() / 255
    found = (pixel_features(one) - pixel_features(other)).norm()
    assert found.item() == pytest.approx(expected.item(), rel=roundings(20))  # a sum of up to 3,072 squares
    assert pixel_features(one).shape == (1, 3072)


def test_large_images_are_averaged():
    checks = torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8).repeat(32, 32).expand(1, 3, -1, -1)
    assert (pixel_features(checks) == 0.5).all()


# All of them


def test_error_bars_shrink_with_the_root_of_the_number_of_images():
    """Four times the images, half the error: to a fifth for a bootstrap of 200, to a third for subsets of half."""
    makes = {"fid": FrechetDistance(num_resamples=200), "kid": KernelDistance(), "precision": PrecisionRecall()}
    for name, score in makes.items():
        errors = []
        for n in (500, 2000):
            found = score(features(normal(n, 6, 0)), features(normal(n, 6, 1, mean=0.8, spread=1.2)))
            errors.append(found[name].error)
        assert errors[0] / errors[1] == pytest.approx(2, rel=0.35), name


def test_wrong_settings_are_refused_by_name():
    wrong = [
        (FrechetDistance, {"num_resamples": 1}), (InceptionScore, {"num_resamples": -1}),
        (KernelDistance, {"num_subsets": 1}), (KernelDistance, {"subset_size": 0}),
        (PrecisionRecall, {"k": 0}), (Memorization, {"ratio": 2}), (FrechetInfinity, {"smallest": 1}),
    ]  # fmt: skip
    for kind, setting in wrong:
        with pytest.raises(ValueError, match=next(iter(setting))):
            kind(**setting)


def test_scores_that_say_the_same_of_themselves_are_the_same():
    scores = [FrechetDistance(), FrechetDistance("spatial", "sfid"), FrechetInfinity(), InceptionScore()]
    scores += [Memorization(), KernelDistance(), KernelDistance(50), PrecisionRecall(), PrecisionRecall(5)]
    scores += [ClassCoverage()]
    for one, other in itertools.combinations(scores, 2):
        assert one.describe() != other.describe()
