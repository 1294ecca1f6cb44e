"""The page's tables: runs and what differs, results by protocol, settings, environment."""

from collections.abc import Iterable
from typing import Any

from ddpm.metrics.directions import lower_is_better
from ddpm.metrics.protocol import Result
from ddpm.report.curves import swatch
from ddpm.report.differences import text
from ddpm.report.markup import Markup, joined, named, tag
from ddpm.report.report import Report
from ddpm.report.results import Comparison, best

HOW = {"weights": "weights", "sampler": "sampler", "steps": "sampling steps", "seed": "seed", "denoiser": "denoiser"}
"""Fields of a result's subject that tell its rows apart, beside the run and the step."""


def boxed(table: Markup, name: str) -> Markup:
    """A table that scrolls by itself where the screen is narrow."""
    return tag("div", table, class_="box", role="region", tabindex="0", aria_label=name)


def run_name(report: Report, number: int) -> Markup:
    return joined(swatch(number), named(report.labels[number]))


def table(head: Iterable[object], rows: Iterable[Iterable[Markup]], caption: str) -> Markup:
    return tag(
        "table",
        tag("caption", caption, class_="unseen"),
        tag("thead", tag("tr", [cell if isinstance(cell, Markup) else tag("th", cell, scope="col") for cell in head])),
        tag("tbody", [tag("tr", list(row)) for row in rows]),
    )


def runs_table(report: Report) -> Markup:
    columns = report.differences.columns
    rows = []
    for number, run in enumerate(report.runs):
        cells = [tag("th", run_name(report, number), scope="row")]
        for key, values in columns.items():
            more = report.differences.details.get(key, [""] * len(values))[number]
            cells.append(tag("td", values[number], tag("small", more) if more else None))
        last = run.series.last_step
        steps = "—" if last is None else f"{last:,}"
        cells.append(tag("td", steps, tag("small", f"of {run.max_steps:,}") if run.is_short else None, class_="number"))
        cells.append(tag("td", run.begun.strftime("%Y-%m-%d %H:%M") if run.begun else "—", class_="number"))
        cells.append(tag("td", tag("code", named(run.name))))
        rows.append(cells)
    number_head = [tag("th", name, scope="col", class_="number") for name in ("steps", "begun")]
    return boxed(table(["run", *columns, *number_head, "folder"], rows, "Runs and what they differ in"), "Runs")


def common_settings(report: Report) -> Markup | None:
    common = report.differences.common
    if not common:
        return None
    rows = [[tag("th", tag("code", key), scope="row"), tag("td", value)] for key, value in common.items()]
    whose = "all runs share" if len(report.runs) > 1 else "of the run"
    return tag(
        "details",
        tag("summary", f"{len(common)} settings that {whose}" if len(report.runs) > 1 else f"{len(common)} settings"),
        boxed(table(["setting", "value"], rows, f"Settings {whose}"), "Settings"),
    )


def how(result: Result) -> tuple[str, ...]:
    return tuple(text(result.subject.get(key)) for key in HOW)


def step_of(result: Result) -> int | None:
    step = result.subject.get("step")
    return step if type(step) is int else None


def newest(place: Comparison) -> tuple[list[tuple[int, Result]], list[tuple[int, Result]]]:
    """Of each run, and each way of sampling it, the result of the last step; and the others."""
    order = sorted(
        place.results, key=lambda each: (each[0], how(each[1]), -1 if step_of(each[1]) is None else step_of(each[1]))
    )
    last = {(run, how(result)): result for run, result in order}
    chosen = [each for each in order if last[each[0], how(each[1])] is each[1]]
    return chosen, [each for each in order if last[each[0], how(each[1])] is not each[1]]


def comparison_section(report: Report, place: Comparison, number: int, num: int) -> Markup:
    told = [(key, place.fields[key]) for key in place.distinct]
    heading = f"Protocol {number} of {num}" if num > 1 else "Results"
    chosen, earlier = newest(place)
    parts = [tag("h3", heading)]
    if num > 1:
        words = [joined(tag("b", key), " ", tag("span", plain(value))) for key, value in told]
        parts.append(tag("p", "Not to be compared with the other tables. Here: ", separated(words, "; "), "."))
    parts.append(values_table(report, place, chosen, marks=True))
    parts.append(tag("p", shared_subject(chosen), class_="quiet"))
    if earlier:
        parts.append(
            tag(
                "details",
                tag("summary", f"{len(earlier)} more at earlier steps"),
                values_table(report, place, earlier, False),
            )
        )
    rows = [[tag("th", tag("code", key), scope="row"), tag("td", plain(value))] for key, value in place.fields.items()]
    protocol = boxed(table(["field", "value"], rows, "Protocol"), "Protocol")
    parts.append(tag("details", tag("summary", "How these were measured"), protocol))
    return tag("section", parts)


def separated(parts: list[Markup], by: str) -> list[object]:
    return [each for part in parts for each in (part, by)][:-1]


def plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {plain(each)}" for key, each in value.items())
    return f"{value:,}" if type(value) is int else text(value)


def unequal_subjects(rows: list[tuple[int, Result]]) -> list[str]:
    return [key for key in HOW if len({text(result.subject.get(key)) for _, result in rows}) > 1]


def shared_subject(rows: list[tuple[int, Result]]) -> str:
    shared = [key for key in HOW if key not in unequal_subjects(rows) and rows[0][1].subject.get(key) is not None]
    same = ", ".join(f"{HOW[key]} {text(rows[0][1].subject[key])}" for key in shared)
    return f"The same for all rows: {same}." if same and len(rows) > 1 else (f"With {same}." if same else "")


def values_table(report: Report, place: Comparison, rows: list[tuple[int, Result]], marks: bool) -> Markup:
    unequal = unequal_subjects(rows)
    columns, shown = [], []
    for metric in place.metrics:
        values = [place.value(result, metric) for _, result in rows]
        if all(each is None for each in values):
            continue
        side = lower_is_better(metric)
        top, near = best(values, side) if marks else (set(), set())
        columns.append(metric_head(metric, side))
        digits = max(decimals(each[0]) for each in values if each)
        shown.append([value_cell(each, digits, k in top, k in near) for k, each in enumerate(values)])
    body = []
    for k, (run, result) in enumerate(rows):
        step = step_of(result)
        cells = [tag("th", run_name(report, run), scope="row")]
        cells.append(tag("td", "—" if step is None else f"{step:,}", class_="number"))
        cells += [tag("td", text(result.subject.get(key))) for key in unequal]
        body.append(cells + [column[k] for column in shown])
    head = ["run", tag("th", "step", scope="col", class_="number"), *(HOW[key] for key in unequal), *columns]
    return boxed(table(head, body, "Results of one protocol"), "Results")


def metric_head(metric: str, lower: bool | None) -> Markup:
    arrow = {True: ("↓", "lower is better"), False: ("↑", "higher is better"), None: ("", "")}[lower]
    told = joined(
        " ", tag("span", arrow[0], title=arrow[1], aria_hidden="true"), tag("span", arrow[1], class_="unseen")
    )
    return tag("th", named(metric), told if arrow[0] else None, scope="col", class_="number")


def value_cell(value: tuple[float, float | None] | None, digits: int, is_best: bool, is_near: bool) -> Markup:
    if value is None:
        return tag("td", "—", class_="number")
    figure, error = with_error(*value, digits)
    mark = (
        tag("span", "best", class_="mark")
        if is_best
        else tag("span", "≈ best", class_="mark near")
        if is_near
        else None
    )
    told = joined(figure, tag("span", f" ± {error}", class_="error") if error else None)
    return tag("td", joined(mark, " ") if mark else None, tag("b", told) if is_best else told, class_="number")


def decimals(value: float) -> int:
    """Of four significant digits, without the zeros at their end."""
    digits = f"{value:.4g}"
    return 0 if "e" in digits else len(digits.partition(".")[2])


def with_error(value: float, error: float | None, digits: int) -> tuple[str, str]:
    """As many digits as the error leaves meaning in; where it is not known, those of the column."""
    if not error or not 0 < error < float("inf"):
        return f"{value:,.{digits}f}" if 1e-3 <= abs(value) < 1e9 or value == 0 else f"{value:.4g}", ""
    digits = min(12, max(0, 1 - int(f"{error:e}".partition("e")[2])))
    return f"{value:,.{digits}f}", f"{error:,.{digits}f}"


def environment_table(report: Report) -> Markup:
    """What each run was trained with by its settings, and where its results were made."""
    rows = []
    for number, run in enumerate(report.runs):
        trained = [run.setting(f"trainer.{key}") for key in ("accelerator", "devices", "precision")]
        made = dict.fromkeys(str(result.environment.device) for result in run.results)
        versions = dict.fromkeys(versions_of(result) for result in run.results)
        rows.append(
            [
                tag("th", run_name(report, number), scope="row"),
                tag("td", " · ".join(text(each) for each in trained) if run.config else "not known"),
                tag("td", "; ".join(made) or "no results"),
                tag("td", "; ".join(versions) or "stored with results only"),
            ]
        )
    head = ["run", "trained with", "evaluated on", "versions then"]
    return boxed(table(head, rows, "Environment of each run"), "Environment")


def versions_of(result: Result) -> str:
    versions = result.environment.versions
    return (
        ", ".join(f"{key} {value}" for key, value in versions.items()) if isinstance(versions, dict) else text(versions)
    )
