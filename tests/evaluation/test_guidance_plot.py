"""The table and the picture of a sweep over guidance, of points that are made up."""

import numpy as np
import pytest
from PIL import Image

from ddpm.base.plots import save_figure
from ddpm.evaluation import guidance_plot, sweep_table
from ddpm.evaluation.sweep_table import SweepPoint
from ddpm.metrics.score import Estimate

FID, PRECISION, RECALL, ACCURACY = (f"{name}_made_1k" for name in ("fid", "precision", "recall", "accuracy"))


def point(scale, fid, precision, recall, accuracy, repeats=1):
    values = {
        FID: Estimate(fid, 0.1), PRECISION: Estimate(precision, 0.01), RECALL: Estimate(recall, 0.01),
        ACCURACY: Estimate(accuracy, 0.005), "accuracy_of_3_made_1k": Estimate(0.123),
        "accuracy_of_real_made_1k": Estimate(0.987), "fid_per_class_made_1k": Estimate(77.0),
    }  # fmt: skip
    return SweepPoint("scale", scale, 10, values, 0.5, "cpu: made up", repeats)


@pytest.fixture
def points():
    return [
        point(2, 4.0, 0.7, 0.6, 0.9),
        point(0, 9.0, 0.5, 0.7, 0.1),
        point(1.5, 3.0, 0.6, 0.65, 0.8),
        point(6, 12.0, 0.8, 0.2, 0.99),
    ]


def test_the_text_has_a_line_a_scale_and_the_best_marked(points):
    lines = guidance_plot.text(guidance_plot.order_points(points)).splitlines()
    assert lines[0].split() == ["scale", FID, PRECISION, RECALL, ACCURACY]  # values of one class are in the CSV
    assert [line.split()[0] for line in lines[1:5]] == ["0", "1.5", "2", "6"]
    assert "3.00 ± 0.10 *" in lines[2]
    assert lines[4].count("*") == 2  # the most precise, and the most accurate
    assert f"best {FID} (low is better): scale 1.5: 3.00 ± 0.10" in lines
    assert f"best {RECALL} (high is better): scale 0: 0.700 ± 0.010" in lines
    assert "accuracy_of_real_made_1k: 0.987" in lines


def test_the_table_has_every_value_in_the_order_of_the_scales(points):
    rows = sweep_table.sweep_rows(guidance_plot.order_points(points), guidance_plot.COLUMNS)
    assert [row["scale"] for row in rows] == [0, 1.5, 2, 6]
    assert [row[FID] for row in rows] == [9, 3, 4, 12]
    assert [row[f"{FID}_best"] for row in rows] == ["false", "true", "false", "false"]
    assert {row["accuracy_of_3_made_1k"] for row in rows} == {0.123}
    assert "evaluations" not in rows[0]  # guidance asks the network more than once a step


def test_metrics_that_belong_together_share_a_panel_and_trade_offs_have_their_own(points):
    names = guidance_plot.totals(points)
    assert list(guidance_plot.plot_panels(names)) == [[FID], [PRECISION, RECALL], [ACCURACY]]
    assert list(guidance_plot.trades(names)) == [(ACCURACY, FID), (RECALL, PRECISION)]
    alone = [FID, "fid_inf_made_1k", "is_made_1k", "density_made_1k", "coverage_made_1k"]
    assert list(guidance_plot.plot_panels(alone)) == [[FID], ["fid_inf_made_1k"], ["is_made_1k"], alone[3:]]
    assert list(guidance_plot.trades(alone)) == [("is_made_1k", FID)]


def test_the_picture_grows_with_what_there_is_to_show(points, tmp_path):
    few = [SweepPoint(p.name, p.value, 10, {FID: p.estimates[FID]}) for p in points]
    sizes = []
    for name, some in (("all", points), ("one", few)):
        save_figure(guidance_plot.picture(some), tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as picture:
            sizes.append(picture.size)
            assert np.asarray(picture.convert("L")).std() > 5  # something is drawn
    assert sizes[0][0] > 2.5 * sizes[1][0]
    assert sizes[0][1] > 1.8 * sizes[1][1]
