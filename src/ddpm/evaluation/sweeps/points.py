"""The points of a sweep: variants with their values, means over seeds, and the best point."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ddpm.evaluation.table import format_estimate
from ddpm.metrics.score import Estimate, lower_is_better


@dataclass(frozen=True, eq=False)
class SweepPoint:
    """A variant of a model, and its values. name, value: the variant, such as ddim and 10 steps, or scale and 1.5.

    evaluations: number of denoiser calls per image. seconds: per image, measured on `device`; None if not measured.
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
    """One point for each variant: for several seeds, their mean and its standard error."""
    repeats: dict[tuple[str, float], list[SweepPoint]] = {}
    for point in points:
        repeats.setdefault((point.name, point.value), []).append(point)
    return [average(some) if len(some) > 1 else some[0] for some in repeats.values()]


def average(repeats: Sequence[SweepPoint]) -> SweepPoint:
    estimates = {}
    for name in repeats[0].estimates:
        values = [each.estimates[name].value for each in repeats]
        estimates[name] = Estimate(statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values)))
    device = next((each.device for each in repeats if each.seconds is not None), "")
    known = [each.seconds for each in repeats if each.seconds is not None and each.device == device]
    seconds = statistics.mean(known) if known else None
    return replace(repeats[0], estimates=estimates, seconds=seconds, device=device, num_repeats=len(repeats))


def metrics(points: Iterable[SweepPoint]) -> list[str]:
    return list(dict.fromkeys(name for point in points for name in point.estimates))


def best_point(points: Iterable[SweepPoint], metric: str) -> SweepPoint | None:
    """The best point, of equal ones that with the fewest evaluations. None if neither low nor higher is better."""
    lower = lower_is_better(metric)
    if lower is None:
        return None
    sign = 1 if lower else -1
    return min(points, key=lambda point: (sign * point.estimates[metric].value, point.evaluations))


def cells(points: Iterable[SweepPoint], metric: str) -> dict[SweepPoint, str]:
    """The values of a metric as text, with a star at the best."""
    top = best_point(points, metric)
    return {point: format_estimate(point.estimates[metric]) + " *" * (point is top) for point in points}
