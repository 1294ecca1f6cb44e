"""Plots hide nothing: equal lines, labels and legends, and the errors of single points."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ddpm.base.plots import set_apart
from ddpm.evaluation.curves import contains, draw_line, label_points, legend_above, look
from ddpm.metrics.score import Estimate
from ddpm.report.charts import Curve, chart


def pixels_of(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3] / 255.0


@pytest.mark.parametrize("num", [2, 3, 8])
def test_equal_lines_all_remain_visible(num):
    figure = Figure((6, 4))
    axes = figure.add_subplot()
    for number in range(num):
        draw_line(axes, [0, 1, 2], [Estimate(v, 0.1) for v in (3, 2, 1.5)], **look(number))
    set_apart(axes)
    picture = pixels_of(figure)
    for number in range(num):
        distance = np.abs(picture - np.array(to_rgb(f"C{number}"))).max(-1)
        assert (distance < 0.1).sum() >= 20, number


def test_lines_apart_from_each_other_are_solid_whatever_their_scale():
    """Learning rates of 2e-5 and 2e-3, and a curve over its own values before smoothing."""
    x, y = np.arange(4), np.full(4, 2e-5)
    drawn = chart([Curve("low", 0, x, y), Curve("high", 1, x, 100 * y, faint=101 * y)], "step", "rate", "about", False)
    assert "stroke-dasharray" not in drawn
    assert "stroke-dasharray" in chart([Curve("a", 0, x, y), Curve("b", 1, x, y)], "step", "rate", "about")


def test_labels_are_in_the_panel_and_over_no_other_label_or_point():
    rng = np.random.default_rng(0)
    points = [tuple(place) for place in rng.normal(size=(12, 2))]
    figure = Figure((6, 4.5))
    axes = figure.add_subplot()
    axes.plot(*zip(*points, strict=True), "o", linestyle="none")
    axes.margins(0.12)
    label_points(axes, points, [f"label {k}" for k in range(12)])
    boxes = [note.get_window_extent() for note in axes.texts]
    assert len(boxes) == 12
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert all(contains(axes.get_window_extent(), box) for box in boxes)
    places = axes.transData.transform(points)
    assert not any(box.contains(*place) for box in boxes for place in places)


def test_a_legend_lies_above_its_panel():
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    draw_line(axes, [0, 1], [Estimate(0.0), Estimate(1.0)], label="a")
    legend_above(axes)
    pixels_of(figure)
    assert axes.get_legend().get_window_extent().y0 >= axes.get_window_extent().y1


def test_a_single_point_of_the_report_has_its_error_bar():
    one = Curve("a", 0, np.array([10.0]), np.array([3.0]))
    with_error = Curve("a", 0, np.array([10.0]), np.array([3.0]), np.array([0.5]))
    assert chart([with_error], "step", "fid", "").count("<path") > chart([one], "step", "fid", "").count("<path")
