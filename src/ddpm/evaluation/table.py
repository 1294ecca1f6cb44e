"""Results side by side: a table for the terminal, and the same as CSV."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ddpm.metrics.protocol import Result, result_name
from ddpm.metrics.score import Estimate, lower_is_better

ARROWS = {True: "↓", False: "↑", None: ""}
LEGEND = "↓ lower is better, ↑ higher is better; * the best, ≈ within two standard errors of the difference from it"


def format_estimate(estimate: Estimate) -> str:
    """ "3.17 ± 0.03": the error has two significant digits. Without an error, the value has four."""
    if not estimate.error:
        return f"{estimate.value:.4g}"
    digits = max(0, 1 - math.floor(math.log10(estimate.error)))
    return f"{estimate.value:.{digits}f} ± {estimate.error:.{digits}f}"


def metric_columns(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in result.metrics))


def text_table(results: Mapping[str, Result]) -> str:
    """One line for each result, with the best of each metric marked. results: by name."""
    rows: dict[str, dict[str, str]] = {title: {} for title in results}
    for name in metric_columns(list(results.values())):
        values = [result.estimates.get(name) for result in results.values()]
        for row, value, mark in zip(rows.values(), values, best_marks(values, name), strict=True):
            row[with_arrow(name)] = f"{format_estimate(value)} {mark}".rstrip() if value else ""
    return f"{titled_table(rows)}\n{LEGEND}"


def with_arrow(metric: str) -> str:
    """The name of a metric with an arrow in the direction that is better."""
    return f"{metric} {ARROWS[lower_is_better(metric)]}".rstrip()


def direction(metric: str) -> str:
    return {True: "lower is better", False: "higher is better", None: ""}[lower_is_better(metric)]


def best_marks(values: Sequence[Estimate | None], metric: str) -> list[str]:
    """`*` for the best value, and `≈` for those within two standard errors of it."""
    top, near = best_rows(values, lower_is_better(metric))
    return ["*" if k in top else "≈" if k in near else "" for k in range(len(values))]


def best_rows(values: Sequence[Estimate | None], lower: bool | None) -> tuple[set[int], set[int]]:
    """Indices of the best value, and of those within two standard errors of the difference from it."""
    known = {k: each for k, each in enumerate(values) if each is not None}
    if lower is None or len(known) < 2:
        return set(), set()
    top = (min if lower else max)(each.value for each in known.values())
    winners = {k for k, each in known.items() if each.value == top}
    error = max(known[k].error or 0.0 for k in winners)
    near = {k for k, (value, own) in known.items() if own and abs(value - top) <= 2 * math.hypot(own, error)}
    return winners, near - winners


def estimates_table(rows: Mapping[str, Mapping[str, Estimate]]) -> str:
    return titled_table({title: {name: format_estimate(e) for name, e in row.items()} for title, row in rows.items()})


def titled_table(rows: Mapping[str, Mapping[str, str]]) -> str:
    """A line for each title, and a column for each name that any row has. Missing cells are empty."""
    names = dict.fromkeys(name for row in rows.values() for name in row)
    lines = [[title, *(row.get(name, "") for name in names)] for title, row in rows.items()]
    return align_columns([["", *names], *lines])


def align_columns(rows: Sequence[Sequence[str]]) -> str:
    """The rows as text, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def spread(results: Mapping[str, Result]) -> str:
    """Mean and standard deviation of each metric over repeats with other seeds, and the best, as papers may report."""
    lines = []
    for name in metric_columns(list(results.values())):
        values = [result.metrics[name] for result in results.values()]
        better = {True: ("least", min), False: ("most", max)}.get(lower_is_better(name))
        best = f", {better[0]} {better[1](values):.4g}" if better else ""
        lines.append(f"{name}  mean {statistics.mean(values):.4g}, deviation {statistics.stdev(values):.2g}{best}")
    return "\n".join(lines)


def with_errors(estimates: Mapping[str, Estimate]) -> dict[str, float | None]:
    """A table row with each value followed by its standard error."""
    row: dict[str, float | None] = {}
    for name, (value, error) in estimates.items():
        row |= {name: value, f"{name}_error": error}
    return row


def result_rows(results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """A row for each result: name, step, seed, all metrics with standard errors, and the name of the result's file."""
    rows = []
    for title, result in results.items():
        about = {"name": title, "step": result.subject.get("step"), "seed": result.subject.get("seed")}
        rows.append(about | with_errors(result.estimates) | {"result": result_name(result)})
    return rows
