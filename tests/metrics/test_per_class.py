"""Scores that ask which class an image is of: closed forms, exchanged classes, and what a classifier learns."""

import math

import pytest
import torch
from precision import roundings
from small_features import classes, features, gaussian_features, normal

from ddpm.metrics.cas import ClassificationAccuracyScore
from ddpm.metrics.class_accuracy import ClassAccuracy
from ddpm.metrics.classes import describe_classes
from ddpm.metrics.fid import FrechetDistance
from ddpm.metrics.per_class import PerClass
from ddpm.metrics.prdc import ClassCoverage, PrecisionRecall
from ddpm.metrics.score import FeatureSet

pytestmark = pytest.mark.filterwarnings("ignore:(FID|FrechetDistance|PrecisionRecall).* of")
SCORES = [PerClass(FrechetDistance(num_resamples=0)), ClassAccuracy(), ClassificationAccuracyScore()]


def exact(n, d, seed, mean=0.0, spread=1.0):
    """`[n, d]` of which sample mean and unbiased covariance are `mean` and spread^2 I."""
    return gaussian_features(torch.zeros(d) + mean, spread**2 * torch.eye(d).double(), n, seed)


# By class


def test_the_frechet_distance_of_each_class_is_the_closed_form_of_its_gaussians():
    """N(0, I) against N((3, 0), 4 I): 9 + 2 (2 - 1)^2. The other class is the same on both sides."""
    real = classes(exact(300, 2, 0), exact(200, 2, 1, mean=10))
    shifted = torch.tensor([3.0, 0.0])
    generated = classes(exact(100, 2, 2, mean=shifted, spread=2), exact(150, 2, 3, mean=10))
    found = PerClass(FrechetDistance(num_resamples=10))(real, generated)
    assert list(found) == ["fid_per_class", "fid_worst", "fid_of_0", "fid_of_1"]
    assert found["fid_of_0"].value == pytest.approx(11, rel=roundings(10))  # the rows are float32, all else is not
    assert found["fid_of_1"].value == pytest.approx(0, abs=1e-9)  # squares of roundings
    assert found["fid_per_class"].value == pytest.approx(5.5, rel=roundings(10))
    errors = found["fid_of_0"].error, found["fid_of_1"].error
    assert found["fid_per_class"].error == pytest.approx(math.hypot(*errors) / 2)
    assert found["fid_worst"] == found["fid_of_0"]


def test_two_classes_exchanged_show_by_class_alone():
    """The same images under each other's names: as a whole nothing has changed, by class they are 8 apart."""
    one, other = exact(100, 2, 0), exact(100, 2, 1, mean=torch.tensor([8.0, 0.0]))
    real, generated = classes(one, other), classes(other, one)
    assert FrechetDistance(num_resamples=0)(real, generated)["fid"].value == pytest.approx(0, abs=1e-9)
    by_class = PerClass(FrechetDistance(num_resamples=0))(real, generated)
    assert [by_class[f"fid_of_{label}"].value for label in (0, 1)] == pytest.approx([64, 64], rel=roundings(10))
    assert by_class["fid_per_class"].error is None
    assert PrecisionRecall()(real, generated)["precision"].value == 1
    assert PerClass(PrecisionRecall())(real, generated)["precision_worst"].value == 0


def test_by_class_the_worst_is_the_lowest_where_high_is_better():
    real = classes(normal(100, 2, 0), normal(100, 2, 1, mean=50))
    generated = classes(normal(100, 2, 2), normal(100, 2, 3, mean=90))
    found = PerClass(PrecisionRecall())(real, generated)
    for name in ("precision", "recall", "coverage"):
        assert found[f"{name}_worst"].value == found[f"{name}_of_1"].value == 0
        assert found[f"{name}_of_0"].value > 0.8
        assert found[f"{name}_per_class"].value == pytest.approx(found[f"{name}_of_0"].value / 2)


def test_only_classes_that_were_asked_for_are_measured():
    real = classes(exact(50, 2, 0), exact(50, 2, 1, mean=10))
    asked = features(exact(50, 2, 2, mean=10), labels=torch.ones(50, dtype=torch.int64))
    found = PerClass(FrechetDistance(num_resamples=0))(real, asked)
    assert set(found) == {"fid_per_class", "fid_worst", "fid_of_1"}
    assert found["fid_per_class"].value == pytest.approx(0, abs=1e-9)


# Accuracy


def logits(chosen, num=3):
    return 5 * torch.nn.functional.one_hot(torch.tensor(chosen), num).float() - 1


def test_accuracy_is_the_share_of_images_in_which_the_class_asked_for_is_seen():
    """Of 8 images 5 as asked; of the real ones 3 of 4. The error of a share p of n is sqrt(p (1 - p) / (n - 1))."""
    generated = features(logits([0, 0, 1, 2, 1, 2, 2, 2]), labels=torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]))
    real = features(logits([0, 1, 2, 0]), labels=torch.tensor([0, 1, 2, 2]))
    found = ClassAccuracy()(real, generated)
    assert found["accuracy"].value == 5 / 8
    assert found["accuracy"].error == pytest.approx(math.sqrt(5 / 8 * 3 / 8 / 7))
    assert [found[f"accuracy_of_{label}"].value for label in range(3)] == [1 / 2, 1 / 2, 1]
    assert found["accuracy_of_real"].value == 3 / 4


def test_the_yardstick_is_of_the_classes_that_were_asked_for():
    generated = features(logits([2, 2]), labels=torch.tensor([2, 2]))
    real = features(logits([0, 1, 2, 0]), labels=torch.tensor([0, 1, 2, 2]))
    assert ClassAccuracy()(real, generated)["accuracy_of_real"].value == 1 / 2


def test_a_classifier_of_other_classes_is_refused():
    real = features(logits([0, 1, 2], num=1008), labels=torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="have 1008 classes, and the real images have 3; choose metric=cas"):
        ClassAccuracy().refuse(real, real)


# What a classifier learns


def test_a_classifier_learns_all_of_classes_that_lie_apart():
    means = [torch.tensor(at) for at in ((0.0, 0.0), (30.0, 0.0), (0.0, 30.0))]
    real, generated = (classes(*(normal(60, 2, s + k, m) for k, m in enumerate(means))) for s in (0, 10))
    found = ClassificationAccuracyScore()(real, generated)
    assert {estimate.value for estimate in found.values()} == {1.0}
    assert set(found) == {"cas", "cas_of_real", "cas_of_0", "cas_of_1", "cas_of_2"}


def test_labels_that_were_shuffled_are_told_as_by_chance():
    """Of 3000 real images whose labels say nothing of them, a third is right, whatever was learned."""
    means = [4.0 * torch.eye(3)[k] for k in range(3)]
    real, generated = (classes(*(normal(n, 3, n + k, m) for k, m in enumerate(means))) for n in (1000, 200))
    shuffled = real.labels[torch.randperm(3000, generator=torch.Generator().manual_seed(0))]
    found = ClassificationAccuracyScore()(features(real.rows, labels=shuffled), generated)
    for name in ("cas", "cas_of_real"):
        assert found[name].value == pytest.approx(1 / 3, abs=4 * found[name].error)
        assert found[name].error == pytest.approx(math.sqrt(1 / 3 * 2 / 3 / 3000), rel=0.1)


def test_two_gaussians_are_told_apart_as_well_as_they_can_be():
    """Means 2 apart in units of their deviation: the best classifier is right in Phi(1) = 0.8413 of all cases."""
    best = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    real, generated = (classes(normal(4000, 1, s, mean=-1), normal(4000, 1, s + 1, mean=1)) for s in (0, 2))
    found = ClassificationAccuracyScore()(real, generated)
    for name in ("cas", "cas_of_real"):
        assert found[name].value == pytest.approx(best, abs=4 * found[name].error)
        assert found[name].error == pytest.approx(math.sqrt(best * (1 - best) / 8000), rel=0.05)
    exchanged = ClassificationAccuracyScore()(real, classes(generated.rows[4000:], generated.rows[:4000]))
    assert exchanged["cas"].value == pytest.approx(1 - best, abs=4 * found["cas"].error)


def test_no_image_is_tested_by_what_it_trained():
    """Labels that mean nothing, of 200 images with 400 features each: learned by heart they would all be right."""
    rows = normal(200, 400, 0)
    labels = torch.arange(200) % 2
    score = ClassificationAccuracyScore()
    noise = features(rows, labels=labels)
    assert score.fitted(rows, labels).right(rows, labels).all()
    assert abs(score(noise, noise)["cas_of_real"].value - 0.5) < 4 * math.sqrt(0.25 / 200)


def test_the_yardstick_learns_from_no_more_images_than_were_generated(monkeypatch):
    sizes, fitted = [], ClassificationAccuracyScore.fitted
    monkeypatch.setattr(
        ClassificationAccuracyScore, "fitted", lambda self, x, y: (sizes.append(len(x)), fitted(self, x, y))[1]
    )
    real = classes(normal(50, 2, 0), normal(50, 2, 1, mean=30))
    for num, expected in ((10, [20] + [20] * 5), (45, [90] + [80] * 5)):
        sizes.clear()
        ClassificationAccuracyScore()(real, classes(normal(num, 2, 2), normal(num, 2, 3, mean=30)))
        assert sizes == expected


# What is refused


REAL = classes(normal(30, 3, 0), normal(30, 3, 1), normal(30, 3, 2))


@pytest.mark.parametrize("score", SCORES, ids=lambda score: type(score).__name__)
@pytest.mark.parametrize(
    ("real", "labels", "message"),
    [
        (REAL, None, "generated images have no requested class; choose metric=fid"),
        (REAL, torch.full((30,), -1), "generated images have no requested class; choose metric=fid"),
        (REAL, torch.arange(30) % 3 - (torch.arange(30) == 0).long(), "include 1 without one"),
        (features(REAL.rows, labels=torch.full((90,), -1)), torch.arange(30) % 3, "needs labels.*real images"),
        (features(REAL.rows, labels=torch.arange(90) % 2), torch.arange(30) % 3, "class 2 was requested, but no real"),
    ],
    ids=["no labels", "none asked", "one without", "real without", "no real of it"],
)
def test_what_labels_cannot_tell_is_refused(score, real, labels, message):
    rows = normal(30, 3, 3)
    with pytest.raises(ValueError, match=message):
        score(real, FeatureSet(30, None, rows, None, labels))


def test_a_class_with_too_few_images_is_named_with_its_number():
    few = classes(normal(30, 3, 0), normal(5, 3, 1), normal(30, 3, 2))
    for real, generated, kind in ((REAL, few, "generated"), (few, REAL, "real")):
        with pytest.raises(ValueError, match=f"at least 6 {kind} images of each class, got 5 of class 1"):
            PerClass(PrecisionRecall())(real, generated)


def test_a_classifier_needs_two_classes_and_sound_settings():
    alone = FeatureSet(30, None, normal(30, 3, 3), None, torch.full((30,), 2))
    with pytest.raises(ValueError, match="samples of at least two classes, got class 2 alone"):
        ClassificationAccuracyScore()(REAL, alone)
    for setting in ({"l2": 0}, {"num_folds": 1}):
        with pytest.raises(ValueError, match=next(iter(setting))):
            ClassificationAccuracyScore(**setting)


# In the evaluator

ALL = torch.arange(33)


def test_the_protocol_says_which_classes_samples_were_asked_for_where_a_score_looks_at_them(ranks):
    scoring = ranks.shown([FrechetDistance(), ClassAccuracy()])
    assert {"fid_projection_33", "accuracy_projection_33", "accuracy_of_4_projection_33"} < set(scoring.compute())
    made_by = scoring.provenance()["scores"]
    assert made_by["accuracy"] == "ClassAccuracy(layer=logits) of classes 0 to 4, 6 to 7 each"
    assert made_by["fid"] == "FrechetDistance(layer=pooled)"  # so a model without classes can be compared with this one


@pytest.mark.parametrize("scores", ["every_score", "class_scores"])
def test_the_names_of_values_are_known_before_any_image_is_made(ranks, scores):
    scoring = ranks.shown(getattr(ranks, scores)())
    assert set(scoring.names(ALL % 5, ALL % 5)) == set(scoring.compute())


def test_labels_stay_with_their_images_however_these_come(ranks):
    expected = ranks.shown(ranks.class_scores()).compute()
    order = torch.randperm(33, generator=torch.Generator().manual_seed(0))
    found = ranks.shown(ranks.class_scores(), order, order, batch=4).compute()
    assert {name: each.value for name, each in found.items()} == pytest.approx(
        {name: each.value for name, each in expected.items()}, rel=1e-9, abs=1e-12
    )


def test_missing_labels_are_refused_before_the_samples_are_made(ranks):
    scoring = ranks.evaluator([FrechetDistance(), ClassAccuracy()])
    scoring.names(ALL % 5, ALL % 5)
    with pytest.raises(ValueError, match=r"ClassAccuracy.* needs to know the requested class"):
        scoring.names(ALL % 5, ALL % 5 - 1)
    with pytest.raises(ValueError, match="have 5 classes, and the real images have 3"):
        scoring.names(ALL % 3, ALL % 3)


def test_two_metrics_that_give_values_of_one_name_are_refused(ranks):
    scoring = ranks.shown([ClassCoverage(), PerClass(PrecisionRecall())])
    with pytest.raises(ValueError, match=r"PerClass\(.* and ClassCoverage\(.* both give 'coverage_of_0'"):
        scoring.compute()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1, 2, 0, 1, 2], "classes 0 to 2, 2 each"),
        ([0, 1, 2, 0], "classes 0 to 2, 1 to 2 each"),
        ([3, 7], "classes 3, 7, 1 each"),
        ([5, 5], "class 5"),
        ([-1, -1], "no class"),
        ([-1, 4], "classes none, 4, 1 each"),
    ],
)
def test_what_was_asked_for_in_words(labels, words):
    assert describe_classes(torch.tensor(labels)) == words
