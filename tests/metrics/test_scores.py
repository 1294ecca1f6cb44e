"""FID and IS against closed forms, without a network."""

import math

import pytest
import scipy.linalg
import torch

from ddpm.metrics.fid import FrechetDistance
from ddpm.metrics.inception_score import InceptionScore


def gaussian_features(mean, covariance, n, seed):
    """`[n, d]` whose sample mean and unbiased covariance are exactly the given ones."""
    x = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov().reshape(len(mean), -1)), x.T, upper=False).T
    return white @ torch.linalg.cholesky(covariance).T + mean


def random_moments(d, seed):
    make = torch.Generator().manual_seed(seed)
    root = torch.randn(d, d, generator=make, dtype=torch.float64)
    return torch.randn(d, generator=make, dtype=torch.float64), root @ root.T / d + 0.1 * torch.eye(d)


def frechet(real, generated):
    score = FrechetDistance(real.shape[1])
    for features, is_real in ((real, True), (generated, False)):
        score.update(features, torch.arange(len(features)), real=is_real)
    return score.compute()["fid"]


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


def test_frechet_distance_of_a_set_to_itself_is_zero():
    features = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    assert frechet(features, features) == pytest.approx(0, abs=1e-9)


def test_forgetting_the_generated_images_keeps_the_real_ones():
    (m1, s1), (m2, s2) = random_moments(4, 1), random_moments(4, 2)
    real, generated = gaussian_features(m1, s1, 30, 3), gaussian_features(m2, s2, 20, 4)
    score = FrechetDistance(4)
    score.update(real, torch.arange(30), real=True)
    for _ in range(2):
        score.update(generated, torch.arange(20), real=False)
        assert score.compute()["fid"] == pytest.approx(frechet(real, generated), rel=1e-12)
        score.reset_fake()


def inception_score(logits, ids):
    score = InceptionScore(logits.shape[1])
    for some, theirs in zip(logits.split(7), ids.split(7), strict=True):
        score.update(some, theirs, real=False)
    return score.compute()


def test_inception_score_of_one_class_each_is_the_number_of_images_in_a_part():
    values = inception_score(100 * torch.eye(100), torch.arange(100))
    assert values["is"] == pytest.approx(10, rel=1e-9)  # ten parts of ten images, each sure, each of another class
    assert values["is_std"] == pytest.approx(0, abs=1e-9)


def test_inception_score_of_a_classifier_that_sees_no_difference_is_one():
    same = torch.randn(1, 20, generator=torch.Generator().manual_seed(0)).expand(50, -1)
    assert inception_score(same, torch.arange(50))["is"] == pytest.approx(1, abs=1e-9)


def test_inception_score_does_not_depend_on_the_order_in_which_images_come():
    logits = 3 * torch.randn(33, 7, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(33, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    one = inception_score(logits, torch.arange(33))
    torch.manual_seed(1)
    assert inception_score(logits[order], order) == one


def test_inception_score_of_one_part_after_another_is_the_formula():
    """Every part is alike (ten copies), so the shuffle does not matter: exp of the mean KL, written out."""
    p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    parts = torch.stack([p, p.roll(1), p.roll(2)])  # their mean is uniform
    expected = math.exp(math.log(3) + (p * p.log()).sum().item())
    # 3 * 10 * 2000 images: each part's mix of the three is even to 1 %, and the score is flat in the mix at even
    logits = parts.log().repeat(20_000, 1)
    assert inception_score(logits, torch.arange(len(logits)))["is"] == pytest.approx(expected, rel=1e-3)
