"""What a sweep shows of its points: the best, the mean over seeds, the table, the text and the picture."""

import numpy as np
import pytest
from PIL import Image

from ddpm.base.plots import save_figure
from ddpm.evaluation.sweeps import guidance
from ddpm.evaluation.sweeps.guidance import GuidanceSweep
from ddpm.evaluation.sweeps.points import SweepPoint, average_points, best_point
from ddpm.evaluation.sweeps.samplers import SamplerSweep
from ddpm.metrics.score import Estimate

FID, IS, SPREAD, PRECISION, RECALL, ACCURACY = (
    f"{name}_made_1k" for name in ("fid", "is", "is_std", "precision", "recall", "accuracy")
)
SCALES, SAMPLERS = GuidanceSweep([1]), SamplerSweep({"ddim": {}}, ["ddim"], [10])


def of_sampler(sampler, steps, fid, inception, *, evaluations=None, seconds=None):
    values = {FID: Estimate(fid, 0.1), IS: Estimate(inception, 0.2), SPREAD: Estimate(0.05)}
    return SweepPoint(sampler, steps, evaluations or steps, values, seconds, "cpu: made up" if seconds else "")


def of_scale(scale, fid, precision, recall, accuracy):
    values = {
        FID: Estimate(fid, 0.1), PRECISION: Estimate(precision, 0.01), RECALL: Estimate(recall, 0.01),
        ACCURACY: Estimate(accuracy, 0.005), "accuracy_of_3_made_1k": Estimate(0.123),
        "accuracy_of_real_made_1k": Estimate(0.987), "fid_per_class_made_1k": Estimate(77.0),
    }  # fmt: skip
    return SweepPoint("scale", scale, 10, values, 0.5, "cpu: made up")


@pytest.fixture
def samplers():
    return [
        of_sampler("ancestral", 5, 30.0, 2.0, seconds=0.5),
        of_sampler("ancestral", 10, 9.0, 3.0, seconds=1.0),
        of_sampler("heun", 10, 4.0, 2.5, evaluations=19, seconds=1.9),
        of_sampler("heun", 5, 8.0, 2.25, evaluations=9),
    ]


@pytest.fixture
def scales():
    return [
        of_scale(2, 4.0, 0.7, 0.6, 0.9),
        of_scale(0, 9.0, 0.5, 0.7, 0.1),
        of_scale(1.5, 3.0, 0.6, 0.65, 0.8),
        of_scale(6, 12.0, 0.8, 0.2, 0.99),
    ]


def drawn_size(sweep, points, path):
    save_figure(sweep.picture(points), path)
    with Image.open(path) as picture:
        assert np.asarray(picture.convert("L")).std() > 5  # something is drawn
        return np.array(picture.size)


def test_the_best_is_the_lowest_or_the_highest_as_the_metric_has_it_and_of_equal_ones_the_cheapest(samplers):
    assert best_point(samplers, FID) is samplers[2]
    assert best_point(samplers, IS) is samplers[1]
    assert best_point(samplers, SPREAD) is None
    dear, cheap = of_sampler("heun", 5, 4.0, 2.0, evaluations=9), of_sampler("ddim", 5, 4.0, 2.0)
    assert best_point([dear, cheap], FID) is cheap
    assert best_point([dear, cheap], IS) is cheap


def test_seeds_become_their_mean_and_its_standard_error():
    """Of 1, 2, 6 the deviation is sqrt(7), of the mean sqrt(7/3)."""
    seeds = [of_sampler("ddim", 5, fid, 2.0, seconds=s) for fid, s in ((1.0, 1.0), (2.0, 2.0), (6.0, 6.0))]
    other = of_sampler("ddim", 10, 3.0, 2.0)
    mean, alone = average_points([*seeds, other])
    assert mean.estimates[FID].value == pytest.approx(3)
    assert mean.estimates[FID].error == pytest.approx((7 / 3) ** 0.5)
    assert (mean.seconds, mean.num_repeats) == (pytest.approx(3), 3)
    assert alone is other


def test_the_text_has_a_line_a_sampler_the_best_first_and_marked(samplers):
    lines = SAMPLERS.text(SAMPLERS.order_points(samplers)).splitlines()
    assert lines[:4] == [
        f"{FID}, lower is better, * best",
        "steps      5             10",
        "heun       8.00 ± 0.10   4.00 ± 0.10 *",
        "ancestral  30.00 ± 0.10  9.00 ± 0.10",
    ]
    assert f"{IS}, higher is better, * best" in lines
    assert SPREAD in lines
    assert "seconds per image on cpu: made up" in lines
    assert "network evaluations, where they differ from steps: heun 9, 19" in lines
    assert f"best {FID} (lower is better): heun with 10 steps (19 evaluations, 1.9 s an image): 4.00 ± 0.10" in lines
    assert f"best {IS} (higher is better): ancestral with 10 steps (10 evaluations, 1 s an image): 3.00 ± 0.20" in lines


def test_the_text_has_a_line_a_scale_and_the_best_marked(scales):
    lines = SCALES.text(SCALES.order_points(scales)).splitlines()
    assert lines[0].split() == ["scale", FID, PRECISION, RECALL, ACCURACY]  # values of one class are in the CSV
    assert [line.split()[0] for line in lines[1:5]] == ["0", "1.5", "2", "6"]
    assert "3.00 ± 0.10 *" in lines[2]
    assert lines[4].count("*") == 2  # the most precise, and the most accurate
    assert f"best {FID} (lower is better): scale 1.5: 3.00 ± 0.10" in lines
    assert f"best {RECALL} (higher is better): scale 0: 0.700 ± 0.010" in lines
    assert "accuracy_of_real_made_1k: 0.987" in lines


def test_the_table_has_all_numbers_in_full(samplers, scales):
    rows = SAMPLERS.rows(SAMPLERS.order_points(samplers))
    assert [(row["sampler"], row["steps"], row["evaluations"]) for row in rows] == [
        *(("heun", 5, 9), ("heun", 10, 19), ("ancestral", 5, 5), ("ancestral", 10, 10))
    ]
    assert [row[FID] for row in rows] == [8, 4, 30, 9]
    assert [row[f"{FID}_best"] for row in rows] == ["false", "true", "false", "false"]
    assert [row[f"{IS}_best"] for row in rows] == ["false", "false", "false", "true"]
    assert {row[f"{SPREAD}_best"] for row in rows} == {""}
    assert [row["seconds_per_image"] for row in rows] == [None, 1.9, 0.5, 1.0]
    rows = SCALES.rows(SCALES.order_points(scales))
    assert [(row["scale"], row[FID], row[f"{FID}_best"]) for row in rows] == [
        *((0, 9, "false"), (1.5, 3, "true"), (2, 4, "false"), (6, 12, "false"))
    ]
    assert {row["accuracy_of_3_made_1k"] for row in rows} == {0.123}
    assert "evaluations" not in rows[0]  # guidance asks the network more than once a step


def test_seconds_that_nobody_knows_leave_one_panel_and_a_sentence(samplers, tmp_path):
    untimed = [of_sampler(each.name, each.value, each.estimates[FID].value, 2.0) for each in samplers]
    assert "seconds per image: not known" in SAMPLERS.text(untimed)
    two, one = (drawn_size(SAMPLERS, some, tmp_path / "a.png") for some in (samplers, untimed))
    assert one[0] < 0.7 * two[0]


def test_metrics_that_belong_together_share_a_panel_and_trade_offs_have_their_own(scales, tmp_path):
    names = guidance.totals(scales)
    assert list(guidance.panels_over_scale(names)) == [[FID], [PRECISION, RECALL], [ACCURACY]]
    assert list(guidance.trades(names)) == [(ACCURACY, FID), (RECALL, PRECISION)]
    alone = [FID, "fid_inf_made_1k", "is_made_1k", "density_made_1k", "coverage_made_1k"]
    assert list(guidance.panels_over_scale(alone)) == [[FID], ["fid_inf_made_1k"], ["is_made_1k"], alone[3:]]
    assert list(guidance.trades(alone)) == [("is_made_1k", FID)]
    few = [SweepPoint(p.name, p.value, 10, {FID: p.estimates[FID]}) for p in scales]
    five, one = (drawn_size(SCALES, some, tmp_path / "a.png") for some in (scales, few))
    assert (five > [2.5, 1.8] * one).all()
