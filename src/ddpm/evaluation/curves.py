"""Lines with error bars: values over training steps, over the swept setting, or over another value."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from matplotlib.transforms import Bbox

from ddpm.base.plots import set_apart
from ddpm.evaluation.table import direction, metric_columns
from ddpm.metrics.protocol import Result
from ddpm.metrics.score import Estimate


def panel_grid(num: int) -> tuple[Figure, list[Axes]]:
    """A figure of panels, at most three in a row."""
    wide = min(3, num)
    tall = -(-num // wide)
    figure = Figure(figsize=(4.6 * wide, 3.7 * tall), layout="constrained")
    return figure, [figure.add_subplot(tall, wide, number + 1) for number in range(num)]


def draw_line(axes: Axes, x: Sequence[float | Estimate], y: Sequence[Estimate], **style: Any) -> None:
    """A line through the points in their order, with error bars where they are known."""
    across, up = ([each if isinstance(each, Estimate) else Estimate(each) for each in values] for values in (x, y))
    bars = {
        f"{axis}err": [each.error or 0 for each in values] if any(each.error for each in values) else None
        for axis, values in (("x", across), ("y", up))
    }
    look = {"marker": "o", "markersize": 4.5, "linewidth": 1.4, "elinewidth": 0.9, "capsize": 2.5, **style}
    axes.errorbar([each.value for each in across], [each.value for each in up], **bars, **look)
    axes.grid(alpha=0.3)


def look(number: int) -> dict[str, Any]:
    """The colour and the marker of one of several lines."""
    return {"color": f"C{number % 10}", "marker": "osD^vP"[number % 6]}


def with_direction(metric: str) -> str:
    """The label of an axis: "fid_mnist_1k, lower is better"."""
    return ", ".join(filter(None, (metric, direction(metric))))


def logarithmic(axis: Axis) -> None:
    """Make the axis logarithmic with ticks 1, 2, 5, 10, ..., where matplotlib has only powers of ten."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def legend_above(axes: Axes, num_columns: int = 3) -> None:
    """A legend above the panel, where it hides no curve."""
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=num_columns, fontsize="small", frameon=False)


DISTANCES = 9, 16, 26, 40, 60
"""Of a label from its point, in points."""
LEADER = {"arrowstyle": "-", "linewidth": 0.6, "color": "0.4", "shrinkA": 0, "shrinkB": 4}


def label_points(axes: Axes, points: Sequence[tuple[float, float]], labels: Sequence[str]) -> None:
    """Write a label beside each point, at the place around it that hides least of the lines, the points and the other
    labels; a thin line leads to one that is not close. Call it when the axes have their limits."""
    axes.figure.draw_without_rendering()  # fixes the places of the points in the picture
    paths = [axes.transData.transform_path(line.get_path()).interpolated(40) for line in axes.lines]
    pixels = np.concatenate([axes.transData.transform(points), *(path.vertices for path in paths)])
    frame, taken = axes.get_window_extent(), []
    for point, label in zip(points, labels, strict=True):
        costs = []
        for angle, far in itertools.product(range(0, 360, 30), DISTANCES):
            x, y = far * math.cos(math.radians(angle)), far * math.sin(math.radians(angle))
            side = {
                "ha": ("right", "center", "left")[1 + round(x / far)],
                "va": ("top", "center", "bottom")[1 + round(y / far)],
            }
            note = axes.annotate(label, point, (x, y), textcoords="offset points", fontsize="small", zorder=6, **side)
            box = note.get_window_extent().padded(2)
            inside = (box.contains(*pixel) for pixel in pixels)
            hidden = 100 * (sum(map(box.overlaps, taken)) + (not contains(frame, box))) + sum(inside)
            costs.append((hidden + far / 10, len(costs), note, box))
        _, place, best, box = min(costs)
        taken.append(box)
        if place % len(DISTANCES):
            axes.annotate("", point, best.xyann, textcoords="offset points", arrowprops=LEADER)
        for *_, note, _ in costs:
            if note is not best:
                note.remove()


def contains(frame: Bbox, box: Bbox) -> bool:
    return frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1)


def curves_over_training(results: Mapping[str, Result], run_of: Mapping[str, str]) -> Figure:
    """Each metric over the steps of the checkpoints, one line for each run. run_of: the run of each result."""
    names = metric_columns(list(results.values()))
    runs = sorted({run_of[title] for title in results})
    figure, panels = panel_grid(len(names))
    for name, axes in zip(names, panels, strict=True):
        for number, run in enumerate(runs):
            of_run = [result for title, result in results.items() if run_of[title] == run]
            with_step = [each for each in of_run if name in each.metrics and each.subject["step"] is not None]
            points = sorted((each.subject["step"], each.estimates[name]) for each in with_step)
            steps, values = zip(*points, strict=True) if points else ((), ())
            draw_line(axes, steps, values, label=run.replace("$", r"\$"), **look(number))  # else a formula
        set_apart(axes)
        axes.set(ylabel=with_direction(name), xlabel="training step")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if len(runs) > 1:
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", fontsize="small", frameon=False)
    return figure
