"""Results side by side: a table for the terminal, and the same as CSV."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ddpm.metrics.protocol import Result, result_name
from ddpm.metrics.score import Estimate, lower_is_better


def format_estimate(estimate: Estimate) -> str:
    """ "3.17 ± 0.03": as many digits as the error bar leaves meaning in, or four significant ones."""
    if not estimate.error:
        return f"{estimate.value:.4g}"
    digits = max(0, 1 - math.floor(math.log10(estimate.error)))
    return f"{estimate.value:.{digits}f} ± {estimate.error:.{digits}f}"


def metric_columns(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in result.metrics))


def text_table(results: Mapping[str, Result]) -> str:
    """One line a result; the keys are their names."""
    return estimates_table({title: result.estimates for title, result in results.items()})


def estimates_table(rows: Mapping[str, Mapping[str, Estimate]]) -> str:
    return titled_table({title: {name: format_estimate(e) for name, e in row.items()} for title, row in rows.items()})


def titled_table(rows: Mapping[str, Mapping[str, str]]) -> str:
    """A line for each title, a column for each name that any row has; a cell is empty where a row lacks the name."""
    names = dict.fromkeys(name for row in rows.values() for name in row)
    lines = [[title, *(row.get(name, "") for name in names)] for title, row in rows.items()]
    return align_columns([["", *names], *lines])


def align_columns(rows: Sequence[Sequence[str]]) -> str:
    """Each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def spread(results: Mapping[str, Result]) -> str:
    """Of each metric over repeats with other seeds: mean, standard deviation, and the best that papers may report."""
    lines = []
    for name in metric_columns(list(results.values())):
        values = [result.metrics[name] for result in results.values()]
        better = {True: ("least", min), False: ("most", max)}.get(lower_is_better(name))
        best = f", {better[0]} {better[1](values):.4g}" if better else ""
        lines.append(f"{name}  mean {statistics.mean(values):.4g}, deviation {statistics.stdev(values):.2g}{best}")
    return "\n".join(lines)


def with_errors(estimates: Mapping[str, Estimate]) -> dict[str, float | None]:
    """Each value and, after it, its standard error, as a row of a table has them."""
    row: dict[str, float | None] = {}
    for name, (value, error) in estimates.items():
        row |= {name: value, f"{name}_error": error}
    return row


def result_rows(results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """Of each result: name, step, seed, every metric and its standard error, and the name of the result's file."""
    rows = []
    for title, result in results.items():
        about = {"name": title, "step": result.subject.get("step"), "seed": result.subject.get("seed")}
        rows.append(about | with_errors(result.estimates) | {"result": result_name(result)})
    return rows
