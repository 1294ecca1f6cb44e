"""evaluate.py sweep=samplers: each sampler with each number of steps, by quality and cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from ddpm.base import check
from ddpm.base.plots import set_apart
from ddpm.config import load, wiring
from ddpm.evaluation.curves import draw_line, logarithmic, look, with_direction
from ddpm.evaluation.sweeps.base import Sweep, Variant, unique_values
from ddpm.evaluation.sweeps.points import SweepPoint, best_point, cells, metrics
from ddpm.evaluation.table import align_columns, direction
from ddpm.metrics.score import lower_is_better
from ddpm.model.diffusion_model import DiffusionModel


class SamplerSweep(Sweep):
    """options: settings of each sampler by name. samplers: names to compare. steps: numbers of steps, None for T."""

    columns = {  # noqa: RUF012
        "sampler": lambda point: point.name,
        "steps": lambda point: point.value,
        "evaluations": lambda point: point.evaluations,
    }

    def __init__(self, options: Mapping[str, Any], samplers: Sequence[str], steps: Sequence[int | None]) -> None:
        self.options = options
        self.samplers = [check.one_of("sweep.samplers", name, options) for name in unique_values("samplers", samplers)]
        self.steps = unique_values("steps", steps)
        for number in self.steps:
            check.positive_int_or_none("sweep.steps", number)

    def variants(self, config: DictConfig, changes: DictConfig) -> list[Variant]:
        if config.get("sampler"):
            raise ValueError("sampler has no effect with sweep=samplers; choose samplers as sweep.samplers=[...]")
        for group in ("variance", "timestep_spacing"):
            if config.get(group) and not any(group in self.options[name] for name in self.samplers):
                raise ValueError(f"{group} has no effect on sweep.samplers={self.samplers}; leave it out")
        return [self.variant(changes, name, number) for name in self.samplers for number in self.steps]

    def variant(self, changes: DictConfig, name: str, steps: int | None) -> Variant:
        sampler = {"sampler": {**self.options[name], "steps": steps}}
        return Variant(OmegaConf.merge(changes, sampler), name, steps, f"{name} with {steps or 'all'} steps")

    def refuse(self, path: Path, variants: Sequence[Variant], changes: DictConfig) -> None:
        model, stored = load.from_checkpoint(path, changes)
        process = model.sampler.process
        for variant in variants:
            try:
                key = f"sweep.options.{variant.name}"
                settings = load.merged(stored, variant.changes).sampler
                sampler = wiring.complete(wiring.instantiate(settings, key), key, process=process)
                sampler.times(process.T)
            except ValueError as error:
                raise ValueError(f"sweep: {variant.title}: {error}") from error

    def value(self, variant: Variant, model: DiffusionModel) -> float:
        return len(model.sampler.times(model.sampler.process.T)) - 1

    def order_points(self, points: Sequence[SweepPoint]) -> list[SweepPoint]:
        """Samplers from best to worst, by their best values in the first metric with a direction; then by steps."""
        judge = next((name for name in metrics(points) if lower_is_better(name) is not None), None)
        samplers = list(by_sampler(points))
        if judge:
            sign = 1 if lower_is_better(judge) else -1
            tops = {name: best_point(theirs, judge) for name, theirs in by_sampler(points).items()}
            samplers.sort(key=lambda name: sign * tops[name].estimates[judge].value)
        return sorted(points, key=lambda point: (samplers.index(point.name), point.value))

    def describe(self, point: SweepPoint) -> str:
        seconds = "" if point.seconds is None else f", {point.seconds:.3g} s an image"
        return f"{point.name} with {point.value} steps ({point.evaluations} evaluations{seconds})"

    def text(self, points: Sequence[SweepPoint]) -> str:
        """For each metric, a line per sampler and a column per number of steps; then seconds and the best points."""
        repeats = points[0].num_repeats
        of_seeds = f", mean of {repeats} seeds ± its standard error" if repeats > 1 else ""
        blocks = []
        for name in metrics(points):
            judged = f", {direction(name)}, * best" if best_point(points, name) else ""
            blocks.append(f"{name}{judged}{of_seeds}\n{matrix(points, cells(points, name))}")
        timed = {point: f"{point.seconds:.3g}" for point in points if point.seconds is not None}
        if timed:
            blocks.append(f"seconds per image on {devices(points)}\n{matrix(points, timed)}")
        else:
            blocks.append("seconds per image: not known, since all images were generated before times were recorded")
        costs = [
            f"{name} {', '.join(str(point.evaluations) for point in theirs)}"
            for name, theirs in by_sampler(points).items()
            if any(point.evaluations != point.value for point in theirs)
        ]
        if costs:
            blocks.append("network evaluations, where they differ from steps: " + "; ".join(costs))
        return "\n\n".join([*blocks, self.best_lines(points, metrics(points))])

    def picture(self, points: Sequence[SweepPoint]) -> Figure:
        """A row of panels for each metric with a direction: over network evaluations and over seconds."""
        names = [name for name in metrics(points) if lower_is_better(name) is not None] or metrics(points)
        costs = {"network evaluations per image": {point: point.evaluations for point in points}}
        seconds = {point: point.seconds for point in points if point.seconds is not None}
        if seconds:
            costs[f"seconds per image ({devices(points)})"] = seconds
        figure = Figure(figsize=(5.2 * len(costs) + 1.8, 4.0 * len(names)), layout="constrained")
        panels = figure.subplots(len(names), len(costs), squeeze=False)
        for name, row in zip(names, panels, strict=True):
            for axes, (label, cost) in zip(row, costs.items(), strict=True):
                draw_over_cost(axes, points, name, cost)
                axes.set_xlabel(label)
        figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
        return figure


def by_sampler(points: Sequence[SweepPoint]) -> dict[str, list[SweepPoint]]:
    found: dict[str, list[SweepPoint]] = {}
    for point in points:
        found.setdefault(point.name, []).append(point)
    return found


def matrix(points: Sequence[SweepPoint], cells: Mapping[SweepPoint, str]) -> str:
    columns = sorted({point.value for point in points})
    rows = [["steps", *map(str, columns)]]
    for name, theirs in by_sampler(points).items():
        row = {point.value: cells.get(point, "") for point in theirs}
        rows.append([name, *(row.get(number, "") for number in columns)])
    return align_columns(rows)


def devices(points: Sequence[SweepPoint]) -> str:
    return " and ".join(dict.fromkeys(point.device for point in points if point.seconds is not None))


def draw_over_cost(axes: Axes, points: Sequence[SweepPoint], metric: str, cost: Mapping[SweepPoint, float]) -> None:
    """cost: that of each point for which it is known."""
    top = best_point(points, metric)
    for number, (sampler, theirs) in enumerate(by_sampler(points).items()):
        known = [point for point in theirs if point in cost]
        if known:
            estimates = [point.estimates[metric] for point in known]
            draw_line(axes, [cost[point] for point in known], estimates, label=sampler, **look(number))
    if top in cost:
        axes.plot(cost[top], top.estimates[metric].value, "*", color="black", markersize=13, zorder=5, label="best")
    axes.set_ylabel(with_direction(metric))
    logarithmic(axes.xaxis)
    values = [point.estimates[metric].value for point in cost]
    if min(values) > 0 and max(values) > 5 * min(values):
        logarithmic(axes.yaxis)
    set_apart(axes)
