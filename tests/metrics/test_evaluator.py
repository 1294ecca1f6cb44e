"""Many images, one pass, names that say what was measured."""

import warnings

import pytest
import torch

from ddpm.metrics import suites
from ddpm.metrics.evaluator import Evaluator, count_name
from ddpm.metrics.fid import FrechetDistance
from ddpm.metrics.inception_score import InceptionScore

ALL = torch.arange(33)
pytestmark = pytest.mark.filterwarnings("ignore:(FID|IS) of")


@pytest.mark.parametrize(("n", "name"), [(5000, "5k"), (50_000, "50k"), (33, "33"), (1500, "1500"), (2048, "2048")])
def test_a_number_of_images_is_named_shortly_and_exactly(n, name):
    assert count_name(n) == name


def test_names_say_features_and_number_of_images(ranks):
    assert set(ranks.evaluate(ALL, ALL)) == {"fid_projection_33", "is_projection_33", "is_std_projection_33"}


def test_batches_do_not_change_the_values(ranks):
    expected = ranks.evaluate(ALL, ALL, batch=33)
    for batch in (1, 5, 32):
        assert ranks.evaluate(ALL, ALL, batch=batch) == pytest.approx(expected, rel=1e-9)
    order = torch.randperm(33, generator=torch.Generator().manual_seed(0))
    assert ranks.evaluate(order, order.flip(0)) == pytest.approx(expected, rel=1e-9)


def test_the_extractor_never_sees_more_images_at_once_than_asked(ranks):
    sizes = []
    scoring = ranks.evaluator(batch_size=8)
    extract = scoring.extractor
    scoring.extractor = type("Counting", (), {"__call__": lambda _, x: sizes.append(len(x)) or extract(x)})()
    scoring.update_fake(ranks.images("generated", ALL), ALL)
    assert sizes == [8, 8, 8, 8, 1]


def test_grey_images_count_as_their_three_equal_channels(ranks):
    grey = ranks.images("real", ALL)[:, :1]
    values = []
    for real in (grey, grey.repeat(1, 3, 1, 1)):
        scoring = ranks.evaluator()
        scoring.update_real(real, ALL)
        scoring.update_fake(ranks.images("generated", ALL), ALL)
        values.append(scoring.compute())
    assert values[0] == values[1]


def test_evaluations_that_follow_each_other_reuse_the_real_images_also_in_inference_mode(ranks):
    expected = ranks.evaluate(ALL, ALL)
    with torch.inference_mode():
        scoring = ranks.evaluator()
    scoring.update_real(ranks.images("real", ALL), ALL)
    for inference in (True, False, True):
        with torch.inference_mode(inference):
            scoring.update_fake(ranks.images("generated", ALL), ALL)
            assert scoring.compute() == pytest.approx(expected, rel=1e-9)
            scoring.reset_fake()


def test_an_image_that_comes_twice_is_refused(ranks):
    with pytest.raises(ValueError, match=r"1 generated images .* number 3: .*pads"):
        ranks.evaluate(ALL, torch.cat([ALL, ALL[3:4]]))


@pytest.mark.parametrize(("real", "generated"), [(33, 1), (1, 33), (0, 33), (33, 0)])
def test_fewer_than_two_images_are_refused(ranks, real, generated):
    scoring = Evaluator(ranks.Projection(), [FrechetDistance(6)])
    scoring.update_real(ranks.images("real", ALL[:real]), ALL[:real])
    scoring.update_fake(ranks.images("generated", ALL[:generated]), ALL[:generated])
    with pytest.raises(ValueError, match="at least 2 images"):
        scoring.compute()


def test_few_images_bring_a_warning_once(ranks):
    scoring = ranks.evaluator()
    scoring.update_real(ranks.images("real", ALL), ALL)
    scoring.update_fake(ranks.images("generated", ALL), ALL)
    with pytest.warns(UserWarning, match=r"(FID|IS) of 33 generated.*under 10,000") as seen:
        scoring.compute()
    assert len(seen) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scoring.compute()


def test_what_is_said_of_n_depends_on_n():
    score = FrechetDistance(2048)
    assert "full rank" in score.caveat(10_000, 2047)
    assert "full rank" in score.caveat(2047, 10_000)
    assert "biased upwards" in score.caveat(50_000, 9_999)
    assert score.caveat(10_000, 10_000) is None
    assert "biased downwards" in InceptionScore(1008).caveat(0, 9_999)
    assert InceptionScore(1008).caveat(0, 10_000) is None


def test_inception_score_alone_needs_no_real_images(ranks):
    scoring = Evaluator(ranks.Projection(), [InceptionScore(5)])
    assert not scoring.needs_real
    with pytest.raises(ValueError, match="needs_real"):
        scoring.update_real(ranks.images("real", ALL), ALL)
    scoring.update_fake(ranks.images("generated", ALL), ALL)
    expected = ranks.evaluate(ALL, ALL)
    assert all(value == expected[name] for name, value in scoring.compute().items())


def test_provenance_belongs_to_computed_values(ranks):
    scoring = ranks.evaluator()
    scoring.update_real(ranks.images("real", ALL), ALL)
    scoring.update_fake(ranks.images("generated", ALL[:20]), ALL[:20])
    with pytest.raises(ValueError, match="compute first"):
        scoring.provenance()
    scoring.compute()
    known = {"preprocessing": "uint8", "extractor": "projection", "extractor_hash": "0" * 64}
    assert scoring.provenance() == {"num_generated": 20, "num_real": 33, **known}


def test_bad_arguments_are_named(ranks):
    with pytest.raises(ValueError, match="batch_size must be a positive integer, got 0"):
        suites.fid(batch_size=0)
    with pytest.raises(ValueError, match=r"metric.weights must be an existing file, got '/nowhere/inception\.pth'"):
        suites.fid_is(weights="/nowhere/inception.pth")
    with pytest.raises(ValueError, match=r"metric.weights must be a path ending in \.pth"):
        suites.inception_score(weights="inception.pkl")
    with pytest.raises(ValueError, match="scores must be at least one score"):
        Evaluator(ranks.Projection(), [])
    for bad in (ALL[:5], ALL.float()):
        with pytest.raises(ValueError, match=r"ids must be int64 \[33\]"):
            ranks.evaluator().update_fake(ranks.images("generated", ALL), bad)
