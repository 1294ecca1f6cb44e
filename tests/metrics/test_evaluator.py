"""Many images, one pass, names that say what was measured."""

import warnings

import pytest
import torch

from ddpm.base.images import to_uint8
from ddpm.metrics.evaluator import Evaluator, count_name
from ddpm.metrics.fid import FrechetDistance
from ddpm.metrics.inception_score import InceptionScore
from ddpm.metrics.kid import KernelDistance
from ddpm.metrics.score import FeatureSet, Moments

ALL = torch.arange(33)
pytestmark = pytest.mark.filterwarnings("ignore:(FID|IS|KID) of")


@pytest.mark.parametrize(("n", "name"), [(5000, "5k"), (50_000, "50k"), (33, "33"), (1500, "1500"), (2048, "2048")])
def test_a_number_of_images_is_named_shortly_and_exactly(n, name):
    assert count_name(n) == name


def test_names_say_features_and_number_of_images(ranks):
    values = {"fid_projection_33", "is_projection_33", "is_std_projection_33"}
    assert set(ranks.evaluate(ALL, ALL)) == values | {"fid_projection_33_error", "is_projection_33_error"}


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
    scoring.extractor = type(
        "Counting", (), {"__call__": lambda _, x, layers: sizes.append(len(x)) or extract(x, layers)}
    )()
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
            for name, estimate in scoring.compute().items():
                assert estimate.value == pytest.approx(expected[name], rel=1e-9)
            scoring.reset_fake()


def test_an_image_that_comes_twice_is_refused(ranks):
    with pytest.raises(ValueError, match=r"1 generated images .* number 3: .*pads"):
        ranks.evaluate(ALL, torch.cat([ALL, ALL[3:4]]))


@pytest.mark.parametrize(("real", "generated"), [(33, 1), (1, 33), (0, 33), (33, 0)])
def test_fewer_than_two_images_are_refused(ranks, real, generated):
    scoring = ranks.shown([FrechetDistance()], ALL[:real], ALL[:generated])
    with pytest.raises(ValueError, match=r"FrechetDistance.* needs at least 2 (real|generated) images, got [01]"):
        scoring.compute()


def test_few_images_bring_a_warning_once(ranks):
    scoring = ranks.shown()
    with pytest.warns(UserWarning, match=r"(FID|IS) of 33 generated.*under 10,000") as seen:
        scoring.compute()
    assert len(seen) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scoring.compute()


def test_what_is_said_of_n_depends_on_n():
    score = FrechetDistance()
    assert "biased upwards" in score.caveat(50_000, 9_999)
    assert "fid_infinity" in score.caveat(50_000, 9_999)
    assert "fid_infinity" not in FrechetDistance("spatial", "sfid").caveat(50_000, 9_999), "it is of FID"
    assert score.caveat(10_000, 10_000) is None
    assert "biased downwards" in InceptionScore().caveat(0, 9_999)
    assert InceptionScore().caveat(0, 10_000) is None


def test_inception_score_alone_needs_no_real_images(ranks):
    scoring = ranks.shown([InceptionScore()])
    assert not scoring.needs_real
    with pytest.raises(ValueError, match="needs_real"):
        scoring.update_real(ranks.images("real", ALL), ALL)
    expected = ranks.evaluate(ALL, ALL)
    assert all(found.value == expected[name] for name, found in scoring.compute().items())


def test_provenance_belongs_to_computed_values(ranks):
    scoring = ranks.shown(fake=ALL[:20])
    with pytest.raises(ValueError, match="compute first"):
        scoring.provenance()
    scoring.compute()
    known = {"preprocessing": "uint8", "extractor": "projection", "extractor_hash": "0" * 64}
    is_score = "InceptionScore(num_parts=10)"
    known["scores"] = {"fid": "FrechetDistance(layer=pooled)", "is": is_score, "is_std": is_score}
    assert scoring.provenance() == {"num_generated": 20, "num_real": 33, **known}


def test_bad_arguments_are_named(ranks):
    with pytest.raises(ValueError, match="batch_size must be a positive integer, got 0"):
        ranks.evaluator(batch_size=0)
    with pytest.raises(ValueError, match="scores must be at least one score"):
        Evaluator(ranks.Projection(), [])
    for bad in (ALL[:5], ALL.float()):
        with pytest.raises(ValueError, match=r"ids must be int64 \[33\]"):
            ranks.evaluator().update_fake(ranks.images("generated", ALL), bad)


def test_a_score_without_its_layer_is_left_out_unless_it_is_the_only_one(ranks):
    scoring = ranks.evaluator([FrechetDistance(), FrechetDistance("spatial", "sfid")])
    assert [score.name for score in scoring.left_out] == ["sfid"]
    with pytest.raises(
        ValueError, match=r"needs features with the layer 'spatial', and .* have pooled, logits; choose"
    ):
        ranks.evaluator([FrechetDistance("spatial", "sfid")])


def test_what_is_known_of_real_images_stands_for_them(ranks):
    first = ranks.shown(ranks.every_score())
    second = first.renewed()
    second.use_real(first.real_sets())
    second.update_fake(ranks.images("generated", ALL), ALL)
    assert first.compute() == second.compute()


def test_a_reference_that_holds_too_little_is_refused_by_what_it_lacks(ranks):
    moments_alone = ranks.shown([FrechetDistance()])
    needs_rows = ranks.evaluator([KernelDistance()])
    with pytest.raises(ValueError, match=r"KernelDistance.* needs each image's features of layer 'pooled'"):
        needs_rows.use_real(moments_alone.real_sets())
    with pytest.raises(ValueError, match=r"FrechetDistance.* needs mean and covariance"):
        moments_alone.use_real({})
    other = FeatureSet(9, Moments(9, torch.zeros(5).double(), torch.eye(5).double()))
    with pytest.raises(ValueError, match=r"has 5 features, and projection has 6 .*another extractor"):
        moments_alone.use_real({"pooled": other})


def test_memory_does_not_grow_with_the_images_unless_error_bars_are_asked_for(ranks):
    streamed = ranks.shown([FrechetDistance(num_resamples=0)])
    streamed.compute()
    assert streamed.generated["pooled"].rows is None
    assert streamed.real_sets()["pooled"].rows is None
    assert not streamed._fake.rows


def test_rows_are_in_the_order_of_their_numbers_however_they_came(ranks):
    order = torch.randperm(33, generator=torch.Generator().manual_seed(0))
    scoring = ranks.shown([KernelDistance()], order, batch=4)
    found = scoring.real_sets()["pooled"]
    expected = scoring.extractor(to_uint8(ranks.images("real", ALL)), ["pooled"])["pooled"]
    assert torch.equal(found.rows, expected)
    assert torch.equal(found.labels, ALL % 5)
