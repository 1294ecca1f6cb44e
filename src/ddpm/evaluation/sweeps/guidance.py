"""evaluate.py sweep=guidance: one model with increasing guidance scales.

It shows quality against diversity and class accuracy, as in Ho and Salimans 2022, figure 4, and Dhariwal and Nichol
2021, figure 4.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from omegaconf import DictConfig, OmegaConf

from ddpm.base import check
from ddpm.base.plots import set_apart
from ddpm.config import load
from ddpm.evaluation.curves import draw_line, label_points, legend_above, look, panel_grid, with_direction
from ddpm.evaluation.sweeps.base import Sweep, Variant, unique_values
from ddpm.evaluation.sweeps.points import SweepPoint, best_point, cells, metrics
from ddpm.evaluation.table import align_columns, direction, format_estimate
from ddpm.metrics.score import lower_is_better

SCALE = "scale"

PARTS = ("_of_", "_worst_", "_per_class_", "is_std_")
"""Parts of names of values over some of the images. These values are in the CSV, but not in the text or the picture."""

TOGETHER = (("precision", "recall"), ("density", "coverage"))
"""First words of metrics that share a panel."""

TRADES = (("accuracy", "fid"), ("is", "fid"), ("recall", "precision"))
"""First words of pairs of metrics that are drawn against each other, as x and y."""


class GuidanceSweep(Sweep):
    """scales: values of guidance.scale, at least 0."""

    columns = {SCALE: lambda point: point.value}  # noqa: RUF012

    def __init__(self, scales: Sequence[float]) -> None:
        self.scales = unique_values("scales", scales)
        for scale in self.scales:
            check.number("sweep.scales", scale, low=0)

    def variants(self, config: DictConfig, changes: DictConfig) -> list[Variant]:
        changed = [(scale, OmegaConf.merge(changes, {"guidance": {SCALE: scale}})) for scale in self.scales]
        return [Variant(each, SCALE, scale, f"scale {scale:g}") for scale, each in changed]

    def refuse(self, path: Path, variants: Sequence[Variant], changes: DictConfig) -> None:
        """Tries the scale furthest from 1, because scale=1 is the conditional model and needs less."""
        furthest = max(variants, key=lambda variant: abs(variant.value - 1))
        try:
            _, stored = load.from_checkpoint(path, changes)
            if SCALE not in stored.guidance:
                raise ValueError("this model has no guidance; choose guidance=classifier_free, or guidance=classifier")
            load.from_checkpoint(path, furthest.changes)
        except ValueError as error:
            raise ValueError(f"sweep=guidance: {error}") from error

    def text(self, points: Sequence[SweepPoint]) -> str:
        """A line for each scale and a column for each metric; then the best scale by each metric."""
        names = totals(points)
        columns = [cells(points, name) for name in names]
        rows = [[f"{point.value:g}", *(column[point] for column in columns)] for point in points]
        repeats = points[0].num_repeats
        of_seeds = [f"mean of {repeats} seeds ± its standard error"] if repeats > 1 else []
        of_real = (name for name in metrics(points) if "_of_real_" in f"{name}_")
        yardsticks = [f"{name}: {format_estimate(points[0].estimates[name])}" for name in of_real]
        blocks = [align_columns([[SCALE, *names], *rows]), *of_seeds, self.best_lines(points, names), *yardsticks]
        return "\n\n".join(blocks)

    def picture(self, points: Sequence[SweepPoint]) -> Figure:
        """A panel for each metric over the scale, then a panel for each trade-off, whose points show their scale."""
        over_scale, traded = list(panels_over_scale(totals(points))), list(trades(totals(points)))
        figure, panels = panel_grid(len(over_scale) + len(traded))
        for axes, names in zip(panels, over_scale, strict=False):
            draw_over_scale(axes, points, names)
        for axes, pair in zip(panels[len(over_scale) :], traded, strict=True):
            draw_trade(axes, points, *pair)
        for axes, pair in zip(panels[len(over_scale) :], traded, strict=True):  # when all panels have their places
            places = [tuple(point.estimates[name].value for name in pair) for point in points]
            label_points(axes, places, [f"{'' if k else 'scale '}{point.value:g}" for k, point in enumerate(points)])
        return figure


def totals(points: Sequence[SweepPoint]) -> list[str]:
    """The metrics over all images."""
    return [name for name in metrics(points) if not any(part in f"{name}_" for part in PARTS)]


def panels_over_scale(names: Sequence[str]) -> Iterator[list[str]]:
    """The metrics of each panel: those of `TOGETHER` share one, and all others have their own."""
    left = list(names)
    while left:
        words = next((group for group in TOGETHER if first_word(left[0]) in group), ())
        shared = [name for name in left if name == left[0] or first_word(name) in words]
        left = [name for name in left if name not in shared]
        yield shared


def trades(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    plain = [name for name in names if not name.startswith("fid_inf_")]
    for x, y in TRADES:
        yield from itertools.product(*([name for name in plain if first_word(name) == each] for each in (x, y)))


def first_word(metric: str) -> str:
    return metric.split("_")[0]


def draw_over_scale(axes: Axes, points: Sequence[SweepPoint], names: Sequence[str]) -> None:
    scales = [point.value for point in points]
    for number, name in enumerate(names):
        estimates = [point.estimates[name] for point in points]
        draw_line(axes, scales, estimates, label=name, **look(number))
        top = best_point(points, name)
        if top is not None:
            best = top.estimates[name].value
            axes.plot(top.value, best, "*", color=f"C{number}", markersize=14, zorder=5, mec="black")
        of_real = next((each for each in points[0].estimates if each.startswith(f"{first_word(name)}_of_real_")), None)
        if of_real:
            level = points[0].estimates[of_real].value
            axes.axhline(level, color="0.4", linestyle="--", linewidth=1, label="of real images")
    set_apart(axes)
    directions = {direction(name) for name in names if lower_is_better(name) is not None}
    title = names[0] if len(names) == 1 else " and ".join(map(first_word, names))
    axes.set(xticks=scales, xlabel="guidance scale", ylabel=", ".join([title, *directions]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    if len(axes.get_legend_handles_labels()[1]) > 1:
        legend_above(axes)


def draw_trade(axes: Axes, points: Sequence[SweepPoint], x: str, y: str) -> None:
    """Metric y over metric x, as a curve along the scales, without their labels."""
    across, up = ([point.estimates[name] for point in points] for name in (x, y))
    draw_line(axes, across, up, color="C3")
    axes.set(xlabel=with_direction(x), ylabel=with_direction(y))
    axes.margins(0.12)
