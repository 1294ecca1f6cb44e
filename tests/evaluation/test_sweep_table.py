"""Samplers side by side: what is best, the mean over seeds, and the three forms of the table."""

import numpy as np
import pytest
from PIL import Image

from ddpm.base.plots import save_figure
from ddpm.evaluation import sampler_plot, sweep_table
from ddpm.evaluation.sweep_table import SweepPoint
from ddpm.metrics.score import Estimate

FID, IS, SPREAD = "fid_made_1k", "is_made_1k", "is_std_made_1k"


def point(sampler, steps, fid, inception, *, evaluations=None, seconds=None):
    values = {FID: Estimate(fid, 0.1), IS: Estimate(inception, 0.2), SPREAD: Estimate(0.05)}
    return SweepPoint(sampler, steps, evaluations or steps, values, seconds, "cpu: made up" if seconds else "")


@pytest.fixture
def points():
    return [
        point("ancestral", 5, 30.0, 2.0, seconds=0.5),
        point("ancestral", 10, 9.0, 3.0, seconds=1.0),
        point("heun", 10, 4.0, 2.5, evaluations=19, seconds=1.9),
        point("heun", 5, 8.0, 2.25, evaluations=9),
    ]


def test_the_best_is_the_lowest_or_the_highest_as_the_metric_has_it(points):
    assert sweep_table.best_points(points, FID) is points[2]
    assert sweep_table.best_points(points, IS) is points[1]
    assert sweep_table.best_points(points, SPREAD) is None


def test_of_equal_ones_the_cheapest_is_best():
    dear, cheap = point("heun", 5, 4.0, 2.0, evaluations=9), point("ddim", 5, 4.0, 2.0)
    assert sweep_table.best_points([dear, cheap], FID) is cheap
    assert sweep_table.best_points([dear, cheap], IS) is cheap


def test_seeds_become_their_mean_and_its_standard_error():
    """Of 1, 2, 6 the deviation is sqrt(7), of the mean sqrt(7/3)."""
    seeds = [point("ddim", 5, fid, 2.0, seconds=s) for fid, s in ((1.0, 1.0), (2.0, 2.0), (6.0, 6.0))]
    other = point("ddim", 10, 3.0, 2.0)
    mean, alone = sweep_table.average_points([*seeds, other])
    assert mean.estimates[FID].value == pytest.approx(3)
    assert mean.estimates[FID].error == pytest.approx((7 / 3) ** 0.5)
    assert (mean.seconds, mean.num_repeats) == (pytest.approx(3), 3)
    assert alone is other


def test_the_text_has_a_line_a_sampler_the_best_first_and_marked(points):
    lines = sampler_plot.text(sampler_plot.order_points(points)).splitlines()
    assert lines[:4] == [
        f"{FID}, low is better, * best",
        "steps      5             10",
        "heun       8.00 ± 0.10   4.00 ± 0.10 *",
        "ancestral  30.00 ± 0.10  9.00 ± 0.10",
    ]
    assert f"{IS}, high is better, * best" in lines
    assert SPREAD in lines
    assert "seconds per image on cpu: made up" in lines
    assert "network evaluations where a step is not one: heun 9, 19" in lines
    assert f"best {FID}: heun with 10 steps (19 evaluations, 1.9 s an image): 4.00 ± 0.10" in lines
    assert f"best {IS}: ancestral with 10 steps (10 evaluations, 1 s an image): 3.00 ± 0.20" in lines


def test_the_table_has_all_numbers_in_full(points):
    rows = sweep_table.sweep_rows(sampler_plot.order_points(points), sampler_plot.COLUMNS)
    assert [(row["sampler"], row["steps"], row["evaluations"]) for row in rows] == [
        *(("heun", 5, 9), ("heun", 10, 19), ("ancestral", 5, 5), ("ancestral", 10, 10))
    ]
    assert [row[FID] for row in rows] == [8, 4, 30, 9]
    assert [row[f"{FID}_best"] for row in rows] == ["false", "true", "false", "false"]
    assert [row[f"{IS}_best"] for row in rows] == ["false", "false", "false", "true"]
    assert {row[f"{SPREAD}_best"] for row in rows} == {""}
    assert [row["seconds_per_image"] for row in rows] == [None, 1.9, 0.5, 1.0]


def test_seconds_that_nobody_knows_leave_one_panel_and_a_sentence(points, tmp_path):
    untimed = [point(each.name, each.value, each.estimates[FID].value, 2.0) for each in points]
    assert "seconds per image: not known" in sampler_plot.text(untimed)
    widths = []
    for name, some in (("two", points), ("one", untimed)):
        save_figure(sampler_plot.picture(some), tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as picture:
            widths.append(picture.width)
            assert np.asarray(picture.convert("L")).std() > 5  # something is drawn
    assert widths[1] < 0.7 * widths[0]
