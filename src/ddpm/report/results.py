"""Results of evaluate.py, and which of them may be compared.

Two values are comparable where they have one name and everything in their protocols is equal but the settings of other
scores, which had no hand in them.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddpm.metrics.protocol import Result, read_result

FOLDERS = ("evaluations", "checkpoints")
MAX_RESULTS = 2_000  # of one run


@dataclass(frozen=True)
class Unreadable:
    file: str
    reason: str


def read_results(folder: Path) -> tuple[list[Result], list[Unreadable]]:
    found: list[Result] = []
    failed: list[Unreadable] = []
    paths = [path for name in FOLDERS for path in sorted((folder / name).glob("*.json"))]
    for path in paths[:MAX_RESULTS]:
        name = f"{path.parent.name}/{path.name}"
        try:
            found.append(read_result(path))
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError, OSError) as error:
            failed.append(Unreadable(name, str(error).replace(str(path), path.name)))
    if len(paths) > MAX_RESULTS:
        failed.append(Unreadable("evaluations", f"{len(paths):,} files, of which the first {MAX_RESULTS:,} are read"))
    return found, failed


def score_of(name: str, scores: Any) -> dict[str, Any]:
    """The settings in a protocol that made a value: "fid" of "fid_mnist_1k"; all of them where none has its name."""
    if not isinstance(scores, Mapping):
        return {"": scores}
    fitting = [short for short in scores if name == short or name.startswith(f"{short}_")]
    return {max(fitting, key=len): scores[max(fitting, key=len)]} if fitting else dict(scores)


def circumstances(name: str, result: Result) -> dict[str, Any]:
    """All fields of the protocol that a value must share with another to be compared, as plain values."""
    fields = dataclasses.asdict(result.protocol)
    scores = score_of(name, fields.pop("scores", {}))
    return fields | {f"scores.{short}" if short else "scores": text for short, text in scores.items()}


def frozen(content: Any) -> str:
    return json.dumps(content, sort_keys=True, default=str)


@dataclass
class Comparison:
    """Values that may stand in one table, by (row, metric). fields: their protocol, with `scores.NAME` for each metric.

    distinct: those of the fields that another comparison of the same page has otherwise.
    """

    fields: dict[str, Any]
    metrics: list[str] = field(default_factory=list)
    results: list[tuple[int, Result]] = field(default_factory=list)  # (run, result)
    distinct: list[str] = field(default_factory=list)

    def value(self, result: Result, metric: str) -> tuple[float, float | None] | None:
        """Value and error of a metric, if the result's is one of this comparison."""
        if metric not in result.metrics or any(
            self.fields.get(key, ...) != value for key, value in circumstances(metric, result).items()
        ):
            return None
        error = result.errors.get(metric)
        return float(result.metrics[metric]), None if error is None else float(error)


def comparisons(results: Iterable[tuple[int, Result]]) -> list[Comparison]:
    """A table for each protocol. A score with two settings under one protocol takes a second table."""
    found: list[Comparison] = []
    for run, result in results:
        for metric in result.metrics:
            fields = circumstances(metric, result)
            place = next((each for each in found if fits(each, metric, fields)), None)
            if place is None:
                place = Comparison(dict(fields))
                found.append(place)
            place.fields |= fields
            if metric not in place.metrics:
                place.metrics.append(metric)
            if not any(result is other for _, other in place.results):
                place.results.append((run, result))
    for each in found:
        each.distinct = [
            key
            for key in each.fields
            if any(key in other.fields and other.fields[key] != each.fields[key] for other in found)
        ]
    return found


def fits(place: Comparison, metric: str, fields: dict[str, Any]) -> bool:
    """Whether nothing is otherwise; what only one of the two has are settings of scores that the other lacks."""
    shared_are_equal = all(place.fields[key] == value for key, value in fields.items() if key in place.fields)
    new = [key for key in fields if key not in place.fields]
    return shared_are_equal and all(key.startswith("scores.") for key in new) and not (new and metric in place.metrics)


def best(values: list[tuple[float, float | None] | None], lower: bool | None) -> tuple[set[int], set[int]]:
    """Places of the best value, and of those that two standard errors of the difference do not tell from it."""
    there = {k: each for k, each in enumerate(values) if each is not None}
    if lower is None or len(there) < 2:
        return set(), set()
    top = (min if lower else max)(value for value, _ in there.values())
    winners = {k for k, (value, _) in there.items() if value == top}
    error = max(there[k][1] or 0.0 for k in winners)
    near = {
        k
        for k, (value, own) in there.items()
        if k not in winners and own is not None and abs(value - top) <= 2 * math.hypot(own, error)
    }
    return winners, near
