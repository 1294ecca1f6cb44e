"""What a model gains and loses as it is guided more strongly: by scale as text, and as the trade-offs of the papers.

Quality against variety and class, as Ho and Salimans 2022, figure 4, and Dhariwal and Nichol 2021, figure 4.
"""

import itertools
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import StrMethodFormatter

from ddpm.evaluation.sweep_table import Columns, SweepPoint, best_points, direction, metrics
from ddpm.evaluation.table import align_columns, format_estimate
from ddpm.metrics.directions import lower_is_better

COLUMNS: Columns = {"scale": lambda point: point.value}
PARTS = ("_of_", "_worst_", "_per_class_", "is_std_")
"""In the names of values that are of some images alone: in the CSV, and too many for a terminal or a picture."""

TOGETHER = (("precision", "recall"), ("density", "coverage"))
"""First words of metrics that share a panel."""

TRADES = (("accuracy", "fid"), ("is", "fid"), ("recall", "precision"))
"""First words of what is drawn against each other, as x and y."""


def order_points(points: Sequence[SweepPoint]) -> list[SweepPoint]:
    return sorted(points, key=lambda point: point.value)


def totals(points: Sequence[SweepPoint]) -> list[str]:
    """The metrics of all images."""
    return [name for name in metrics(points) if not any(part in f"{name}_" for part in PARTS)]


def text(points: Sequence[SweepPoint]) -> str:
    """A line a scale, a column a metric; then the best by each."""
    names = totals(points)
    tops = {name: best_points(points, name) for name in names}
    rows = [["scale", *names]]
    for point in points:
        cells = (format_estimate(point.estimates[name]) + " *" * (point is tops[name]) for name in names)
        rows.append([f"{point.value:g}", *cells])
    repeats = points[0].num_repeats
    blocks = [align_columns(rows)]
    if repeats > 1:
        blocks.append(f"mean of {repeats} seeds ± its standard error")
    blocks.append("\n".join(describe_best(top, name) for name, top in tops.items() if top is not None))
    real = [
        f"{name}: {format_estimate(points[0].estimates[name])}" for name in metrics(points) if "_of_real_" in f"{name}_"
    ]
    return "\n\n".join([*blocks, *real])


def describe_best(top: SweepPoint, metric: str) -> str:
    return f"best {metric} ({direction(metric)}): scale {top.value:g}: {format_estimate(top.estimates[metric])}"


def picture(points: Sequence[SweepPoint]) -> Figure:
    """A panel for each metric against the scale, then a panel for each trade-off, its points named by the scale."""
    of_scale, traded = list(plot_panels(totals(points))), list(trades(totals(points)))
    num = len(of_scale) + len(traded)
    wide = min(3, num)
    tall = -(-num // wide)
    figure = Figure(figsize=(4.6 * wide, 3.7 * tall), layout="constrained")
    places = iter(range(1, num + 1))
    for names in of_scale:
        draw_against_scale(figure.add_subplot(tall, wide, next(places)), points, names)
    for x, y in traded:
        draw_trade(figure.add_subplot(tall, wide, next(places)), points, x, y)
    return figure


def plot_panels(names: Sequence[str]) -> Iterator[list[str]]:
    """Metrics that share a panel, those of `TOGETHER`; every other has one alone."""
    left = list(names)
    while left:
        words = next((group for group in TOGETHER if axis_name(left[0]) in group), (left[0],))
        shared = [name for name in left if name == left[0] or axis_name(name) in words]
        left = [name for name in left if name not in shared]
        yield shared


def trades(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for x, y in TRADES:
        yield from itertools.product(*([name for name in names if is_plain(name, each)] for each in (x, y)))


def axis_name(metric: str) -> str:
    return metric.split("_")[0]


def is_plain(metric: str, first: str) -> bool:
    """Whether a metric is the one of this name, as `fid_mnist_5k` is fid and `fid_inf_mnist_5k` is not."""
    return axis_name(metric) == first and not metric.startswith("fid_inf_")


LINE = {"marker": "o", "markersize": 4.5, "linewidth": 1.4, "elinewidth": 0.9, "capsize": 2.5}


def draw_against_scale(axes: Axes, points: Sequence[SweepPoint], names: Sequence[str]) -> None:
    scales = [point.value for point in points]
    for number, name in enumerate(names):
        values, errors = metric_values(points, name)
        axes.errorbar(scales, values, yerr=errors, color=f"C{number}", label=name, **LINE)
        top = best_points(points, name)
        if top is not None:
            axes.plot(top.value, top.estimates[name].value, "*", color=f"C{number}", markersize=12, zorder=5)
        of_real = next((each for each in points[0].estimates if each.startswith(f"{axis_name(name)}_of_real_")), None)
        if of_real:
            axes.axhline(
                points[0].estimates[of_real].value, color="0.4", linestyle="--", linewidth=1, label="of real images"
            )
    directions = {direction(name) for name in names if lower_is_better(name) is not None}
    axes.set_xticks(scales)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel("guidance scale")
    axes.set_ylabel(", ".join([names[0] if len(names) == 1 else " and ".join(map(axis_name, names)), *directions]))
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(fontsize="small")
    axes.grid(alpha=0.3)


def draw_trade(axes: Axes, points: Sequence[SweepPoint], x: str, y: str) -> None:
    """The curve that the scale runs along."""
    (across, across_errors), (up, up_errors) = metric_values(points, x), metric_values(points, y)
    axes.errorbar(across, up, xerr=across_errors, yerr=up_errors, color="C3", **LINE)
    for number, place in enumerate(zip(across, up, strict=True)):
        named = f"{points[number].value:g}" if number else f"scale {points[number].value:g}"
        right = {"xytext": (6, 5), "ha": "left"}
        left = {"xytext": (-6, -12), "ha": "right"}  # by turns, since points lie close where the curve ends
        halo = [withStroke(linewidth=2, foreground="white")]
        words = axes.annotate(
            named, place, textcoords="offset points", fontsize="small", **(left if number % 2 else right)
        )
        words.set(path_effects=halo, zorder=6)
    axes.set_xlabel(f"{x}, {direction(x)}")
    axes.set_ylabel(f"{y}, {direction(y)}")
    axes.grid(alpha=0.3)


def metric_values(points: Sequence[SweepPoint], name: str) -> tuple[list[float], list[float]]:
    """Values and error bars; 0 where there is none."""
    estimates = [point.estimates[name] for point in points]
    return [each.value for each in estimates], [each.error or 0 for each in estimates]
