"""Samplers side by side: each metric by sampler and steps, as text and as CSV, and drawn against what it costs."""

import csv
import io
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from ddpm.atomic import whole, write_whole
from ddpm.evaluation.table import shown
from ddpm.metrics.directions import lower_is_better
from ddpm.metrics.score import Estimate


@dataclass(frozen=True, eq=False)
class SweepPoint:
    """A sampler with a number of steps.

    evaluations: of the network, for each image. seconds: per image, None where nobody knows. device: where that was.
    """

    sampler: str
    steps: int
    evaluations: int
    estimates: Mapping[str, Estimate]
    seconds: float | None = None
    device: str = ""
    num_repeats: int = 1


def averaged(points: Sequence[SweepPoint]) -> list[SweepPoint]:
    """Those of one sampler and number of steps as one: of several seeds, the mean and its standard error."""
    repeats: dict[tuple[str, int], list[SweepPoint]] = {}
    for point in points:
        repeats.setdefault((point.sampler, point.steps), []).append(point)
    return [average(some) if len(some) > 1 else some[0] for some in repeats.values()]


def average(repeats: Sequence[SweepPoint]) -> SweepPoint:
    first = repeats[0]
    device = next((each.device for each in repeats if each.seconds is not None), "")
    known = [each for each in repeats if each.seconds is not None and each.device == device]
    return SweepPoint(
        *(first.sampler, first.steps, first.evaluations),
        {name: mean([each.estimates[name].value for each in repeats]) for name in first.estimates},
        statistics.mean(each.seconds for each in known) if known else None,
        device,
        len(repeats),
    )


def mean(values: Sequence[float]) -> Estimate:
    return Estimate(statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values)))


def metrics(points: Iterable[SweepPoint]) -> list[str]:
    return list(dict.fromkeys(name for point in points for name in point.estimates))


def best(points: Iterable[SweepPoint], metric: str) -> SweepPoint | None:
    """None where neither low nor high is better. Of equal ones the one that costs least."""
    lower = lower_is_better(metric)
    if lower is None:
        return None
    sign = 1 if lower else -1
    return min(points, key=lambda point: (sign * point.estimates[metric].value, point.evaluations))


def direction(metric: str) -> str:
    return "low is better" if lower_is_better(metric) else "high is better"


def in_order(points: Sequence[SweepPoint]) -> list[SweepPoint]:
    """Samplers from the best to the worst, by the best that each attains in the first metric that has a direction; each
    by its steps."""
    judge = next((name for name in metrics(points) if lower_is_better(name) is not None), None)
    samplers = list(dict.fromkeys(point.sampler for point in points))
    if judge:
        sign = 1 if lower_is_better(judge) else -1
        tops = {name: best([p for p in points if p.sampler == name], judge) for name in samplers}
        samplers.sort(key=lambda name: sign * tops[name].estimates[judge].value)
    return sorted(points, key=lambda point: (samplers.index(point.sampler), point.steps))


def text(points: Sequence[SweepPoint]) -> str:
    """By metric: a line a sampler, a column a number of steps. Then seconds, and the best by each metric."""
    points = in_order(points)
    blocks = []
    for name in metrics(points):
        top = best(points, name)
        judged = f", {direction(name)}, * best" if top else ""
        repeats = points[0].num_repeats
        of_seeds = f", mean of {repeats} seeds ± its standard error" if repeats > 1 else ""
        cells = {p: shown(p.estimates[name]) + " *" * (p is top) for p in points}
        blocks.append(f"{name}{judged}{of_seeds}\n{matrix(points, cells)}")
    timed = {point: f"{point.seconds:.3g}" for point in points if point.seconds is not None}
    if timed:
        blocks.append(f"seconds per image on {' and '.join(devices(points))}\n{matrix(points, timed)}")
    else:
        blocks.append("seconds per image: not known, since all images were made before these were noted")
    costs = [f"{name} {', '.join(map(str, asked))}" for name, asked in costlier(points).items()]
    if costs:
        blocks.append("network evaluations where a step is not one: " + "; ".join(costs))
    return "\n\n".join([*blocks, "\n".join(filter(None, (said(best(points, n), n) for n in metrics(points))))])


def said(top: SweepPoint | None, metric: str) -> str:
    if top is None:
        return ""
    seconds = "" if top.seconds is None else f", {top.seconds:.3g} s an image"
    cost = f"{top.evaluations} evaluations{seconds}"
    return f"best {metric}: {top.sampler} with {top.steps} steps ({cost}): {shown(top.estimates[metric])}"


def matrix(points: Sequence[SweepPoint], cells: Mapping[SweepPoint, str]) -> str:
    columns = sorted({point.steps for point in points})
    rows = [["steps", *map(str, columns)]]
    for name in dict.fromkeys(point.sampler for point in points):
        theirs = {point.steps: cells.get(point, "") for point in points if point.sampler == name}
        rows.append([name, *(theirs.get(number, "") for number in columns)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def costlier(points: Sequence[SweepPoint]) -> dict[str, list[int]]:
    """The numbers of evaluations of samplers that ask the network more than once a step."""
    found: dict[str, list[int]] = {}
    for point in points:
        found.setdefault(point.sampler, []).append(point.evaluations)
    plain = {point.sampler for point in points if point.evaluations != point.steps}
    return {name: asked for name, asked in found.items() if name in plain}


def devices(points: Iterable[SweepPoint]) -> list[str]:
    return list(dict.fromkeys(point.device for point in points if point.seconds is not None))


def write_csv(path: Path, points: Sequence[SweepPoint]) -> None:
    """A row each; every metric with its error, and whether it is the best."""
    points = in_order(points)
    names = metrics(points)
    tops = {name: best(points, name) for name in names}
    file = io.StringIO()
    writer = csv.writer(file)
    parts = (part for name in names for part in (name, f"{name}_error", f"{name}_best"))
    writer.writerow(["sampler", "steps", "evaluations", "repeats", *parts, "seconds_per_image", "device"])
    for point in points:
        row: list[object] = [point.sampler, point.steps, point.evaluations, point.num_repeats]
        for name in names:
            value, error = point.estimates[name]
            row += [value, error, str(point is tops[name]).lower() if tops[name] else ""]
        writer.writerow([*row, point.seconds, point.device])
    write_whole(path, file.getvalue().encode())


def draw(path: Path, points: Sequence[SweepPoint]) -> None:
    """For each metric that has a better a row of panels, against network evaluations and against seconds, as a PNG."""
    points = in_order(points)
    names = [name for name in metrics(points) if lower_is_better(name) is not None] or metrics(points)
    costs = {"network evaluations per image": evaluations}
    if any(point.seconds is not None for point in points):
        costs[f"seconds per image ({' and '.join(devices(points))})"] = seconds
    figure = Figure(figsize=(5.2 * len(costs) + 1.8, 4.0 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), len(costs), squeeze=False)
    for name, row in zip(names, panels, strict=True):
        for axes, (label, cost) in zip(row, costs.items(), strict=True):
            draw_panel(axes, points, name, cost)
            axes.set_xlabel(label)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def evaluations(point: SweepPoint) -> float | None:
    return point.evaluations


def seconds(point: SweepPoint) -> float | None:
    return point.seconds


STYLES = [(f"C{number % 10}", "osD^vP"[number % 6]) for number in range(60)]


def draw_panel(
    axes: Axes, points: Sequence[SweepPoint], metric: str, cost: Callable[[SweepPoint], float | None]
) -> None:
    top = best(points, metric)
    styles = dict(zip(dict.fromkeys(point.sampler for point in points), STYLES, strict=False))
    points = [point for point in points if cost(point) is not None]
    for sampler in dict.fromkeys(point.sampler for point in points):
        theirs = [point for point in points if point.sampler == sampler]
        values, errors = zip(*(point.estimates[metric] for point in theirs), strict=True)
        colour, marker = styles[sampler]
        axes.errorbar(
            [cost(point) for point in theirs],
            values,
            yerr=[error or 0 for error in errors],
            label=sampler,
            color=colour,
            marker=marker,
            **{"markersize": 4.5, "capsize": 2.5, "linewidth": 1.3, "elinewidth": 0.9},
        )
    if top in points:
        axes.plot(cost(top), top.estimates[metric].value, "*", color="black", markersize=13, zorder=5, label="best")
    axes.set_xscale("log")
    number_by_twos_and_fives(axes.xaxis)
    axes.set_ylabel(f"{metric}, {direction(metric)}" if top else metric)
    axes.grid(alpha=0.3)
    values = [point.estimates[metric].value for point in points]
    if min(values) > 0 and max(values) > 5 * min(values):
        axes.set_yscale("log")
        number_by_twos_and_fives(axes.yaxis)


def number_by_twos_and_fives(axis: Axis) -> None:
    """1, 2, 5, 10, ... on a logarithmic axis, where matplotlib writes powers of ten alone."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())
