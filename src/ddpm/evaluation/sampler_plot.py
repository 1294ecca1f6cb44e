"""Samplers side by side: each metric by sampler and steps as text, and drawn against what it costs."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from ddpm.evaluation.sweep_table import Columns, SweepPoint, best_points, direction, metrics
from ddpm.evaluation.table import align_columns, format_estimate
from ddpm.metrics.directions import lower_is_better

COLUMNS: Columns = {
    "sampler": lambda point: point.name,
    "steps": lambda point: point.value,
    "evaluations": lambda point: point.evaluations,
}


def order_points(points: Sequence[SweepPoint]) -> list[SweepPoint]:
    """Samplers from the best to the worst, by the best that each attains in the first metric that has a direction; each
    by its steps."""
    judge = next((name for name in metrics(points) if lower_is_better(name) is not None), None)
    samplers = list(dict.fromkeys(point.name for point in points))
    if judge:
        sign = 1 if lower_is_better(judge) else -1
        tops = {name: best_points([p for p in points if p.name == name], judge) for name in samplers}
        samplers.sort(key=lambda name: sign * tops[name].estimates[judge].value)
    return sorted(points, key=lambda point: (samplers.index(point.name), point.value))


def text(points: Sequence[SweepPoint]) -> str:
    """By metric: a line a sampler, a column a number of steps. Then seconds, and the best by each metric."""
    blocks = []
    for name in metrics(points):
        top = best_points(points, name)
        judged = f", {direction(name)}, * best" if top else ""
        repeats = points[0].num_repeats
        of_seeds = f", mean of {repeats} seeds ± its standard error" if repeats > 1 else ""
        cells = {p: format_estimate(p.estimates[name]) + " *" * (p is top) for p in points}
        blocks.append(f"{name}{judged}{of_seeds}\n{matrix(points, cells)}")
    timed = {point: f"{point.seconds:.3g}" for point in points if point.seconds is not None}
    if timed:
        blocks.append(f"seconds per image on {' and '.join(devices(points))}\n{matrix(points, timed)}")
    else:
        blocks.append("seconds per image: not known, since all images were made before these were noted")
    costs = [f"{name} {', '.join(map(str, extra))}" for name, extra in costlier(points).items()]
    if costs:
        blocks.append("network evaluations where a step is not one: " + "; ".join(costs))
    return "\n\n".join(
        [*blocks, "\n".join(filter(None, (describe_cost(best_points(points, n), n) for n in metrics(points))))]
    )


def describe_cost(top: SweepPoint | None, metric: str) -> str:
    if top is None:
        return ""
    seconds = "" if top.seconds is None else f", {top.seconds:.3g} s an image"
    cost = f"{top.evaluations} evaluations{seconds}"
    return f"best {metric}: {top.name} with {top.value} steps ({cost}): {format_estimate(top.estimates[metric])}"


def matrix(points: Sequence[SweepPoint], cells: Mapping[SweepPoint, str]) -> str:
    columns = sorted({point.value for point in points})
    rows = [["steps", *map(str, columns)]]
    for name in dict.fromkeys(point.name for point in points):
        theirs = {point.value: cells.get(point, "") for point in points if point.name == name}
        rows.append([name, *(theirs.get(number, "") for number in columns)])
    return align_columns(rows)


def costlier(points: Sequence[SweepPoint]) -> dict[str, list[int]]:
    """The numbers of evaluations of samplers that call the network more than once a step."""
    found: dict[str, list[int]] = {}
    for point in points:
        found.setdefault(point.name, []).append(point.evaluations)
    plain = {point.name for point in points if point.evaluations != point.value}
    return {name: extra for name, extra in found.items() if name in plain}


def devices(points: Iterable[SweepPoint]) -> list[str]:
    return list(dict.fromkeys(point.device for point in points if point.seconds is not None))


def picture(points: Sequence[SweepPoint]) -> Figure:
    """For each metric that has a better a row of panels, against network evaluations and against seconds."""
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
    return figure


def evaluations(point: SweepPoint) -> float | None:
    return point.evaluations


def seconds(point: SweepPoint) -> float | None:
    return point.seconds


STYLES = [(f"C{number % 10}", "osD^vP"[number % 6]) for number in range(60)]


def draw_panel(
    axes: Axes, points: Sequence[SweepPoint], metric: str, cost: Callable[[SweepPoint], float | None]
) -> None:
    top = best_points(points, metric)
    styles = dict(zip(dict.fromkeys(point.name for point in points), STYLES, strict=False))
    points = [point for point in points if cost(point) is not None]
    for sampler in dict.fromkeys(point.name for point in points):
        theirs = [point for point in points if point.name == sampler]
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
