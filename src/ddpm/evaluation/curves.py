"""Lines with error bars: values over training steps, over the swept setting, or over another value."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from ddpm.evaluation.table import metric_columns
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


def logarithmic(axis: Axis) -> None:
    """Make the axis logarithmic with ticks 1, 2, 5, 10, ..., where matplotlib has only powers of ten."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def curves_over_training(results: Mapping[str, Result]) -> Figure:
    """Each metric over the steps of the checkpoints, one line for each run. results: by RUN/CHECKPOINT."""
    names = metric_columns(list(results.values()))
    runs = sorted({title.rpartition("/")[0] for title in results})
    figure, panels = panel_grid(len(names))
    for name, axes in zip(names, panels, strict=True):
        for run in runs:
            of_run = [result for title, result in results.items() if title.rpartition("/")[0] == run]
            with_step = [each for each in of_run if name in each.metrics and each.subject["step"] is not None]
            points = sorted((each.subject["step"], each.estimates[name]) for each in with_step)
            steps, values = zip(*points, strict=True) if points else ((), ())
            draw_line(axes, steps, values, label=run.replace("$", r"\$"))  # else a formula
        axes.set(title=name, xlabel="training step")
    if len(runs) > 1:
        panels[0].legend(fontsize="small")
    return figure
