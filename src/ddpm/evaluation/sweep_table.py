"""The points of a sweep: what was varied and what came of it; means over seeds, the best, and all of them as CSV."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddpm.metrics.directions import lower_is_better
from ddpm.metrics.score import Estimate

Columns = Mapping[str, Callable[["SweepPoint"], object]]
"""Of a table, by their heads: those that say which variant a row is of."""


@dataclass(frozen=True, eq=False)
class SweepPoint:
    """A variant of a model, and its values. name, value: what was varied, as ddim and 10 steps, or scale and 1.5.

    evaluations: of the denoiser, for each image. seconds: per image, None where nobody knows. device: where that was.
    """

    name: str
    value: float
    evaluations: int
    estimates: Mapping[str, Estimate]
    seconds: float | None = None
    device: str = ""
    num_repeats: int = 1
    settings: str = ""  # of the model


def average_points(points: Sequence[SweepPoint]) -> list[SweepPoint]:
    """Those of one variant as one: of several seeds, the mean and its standard error."""
    repeats: dict[tuple[str, float], list[SweepPoint]] = {}
    for point in points:
        repeats.setdefault((point.name, point.value), []).append(point)
    return [average(some) if len(some) > 1 else some[0] for some in repeats.values()]


def average(repeats: Sequence[SweepPoint]) -> SweepPoint:
    first = repeats[0]
    device = next((each.device for each in repeats if each.seconds is not None), "")
    known = [each for each in repeats if each.seconds is not None and each.device == device]
    return SweepPoint(
        *(first.name, first.value, first.evaluations),
        {name: mean_estimate([each.estimates[name].value for each in repeats]) for name in first.estimates},
        statistics.mean(each.seconds for each in known) if known else None,
        device,
        len(repeats),
        first.settings,
    )


def mean_estimate(values: Sequence[float]) -> Estimate:
    return Estimate(statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values)))


def metrics(points: Iterable[SweepPoint]) -> list[str]:
    return list(dict.fromkeys(name for point in points for name in point.estimates))


def best_points(points: Iterable[SweepPoint], metric: str) -> SweepPoint | None:
    """None where neither low nor high is better. Of equal ones the one that costs least."""
    lower = lower_is_better(metric)
    if lower is None:
        return None
    sign = 1 if lower else -1
    return min(points, key=lambda point: (sign * point.estimates[metric].value, point.evaluations))


def direction(metric: str) -> str:
    return "low is better" if lower_is_better(metric) else "high is better"


def sweep_rows(points: Sequence[SweepPoint], columns: Columns) -> list[dict[str, Any]]:
    """Every metric of a point with its error, and whether it is the best."""
    tops = {name: best_points(points, name) for name in metrics(points)}
    rows = []
    for point in points:
        row = {head: column(point) for head, column in columns.items()} | {"repeats": point.num_repeats}
        for name, top in tops.items():
            value, error = point.estimates[name]
            row |= {name: value, f"{name}_error": error, f"{name}_best": str(point is top).lower() if top else ""}
        rows.append(row | {"seconds_per_image": point.seconds, "device": point.device, "settings": point.settings})
    return rows
