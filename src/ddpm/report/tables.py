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
from ddpm.report.rounding import decimals, with_error

HOW = {"weights": "weights", "sampler": "sampler", "steps": "sampling steps", "seed": "seed", "denoiser": "denoiser"}
MODEL = ("schedule", "noise", "process", "objective", "codec", "cond", "model", "guidance", "guides_sha256")
HOW |= {name: name for name in (*MODEL, "labels", "told_by", "image_shape", "precision")}
"""Fields of a result's subject that tell its rows apart, beside the run and the step."""


MOST_ON_A_LINE = 32  # letters of a run's name


def boxed(table: Markup, name: str) -> Markup:
    """A table that scrolls by itself where the screen is narrow."""
    return tag("div", table, class_="box", role="region", tabindex="0", aria_label=name)


def run_name(report: Report, number: int) -> Markup:
    return joined(swatch(number), named(report.labels[number]))


def run_head(report: Report, number: int) -> Markup:
    long = len(report.labels[number]) > MOST_ON_A_LINE
    return tag("th", run_name(report, number), scope="row", class_="long" if long else None)


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
        cells = [run_head(report, number)]
        for key, values in columns.items():
            more = report.differences.details.get(key, [""] * len(values))[number]
            small = tag("small", more) if more else None
            cells.append(tag("td", values[number], small, class_=length(more or values[number])))
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
    rows = [
        [tag("th", tag("code", key), scope="row"), tag("td", value, class_=length(value))]
        for key, value in common.items()
    ]
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
    rows = [
        [tag("th", tag("code", key), scope="row"), tag("td", plain(value), class_=length(plain(value)))]
        for key, value in place.fields.items()
    ]
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
        cells = [run_head(report, run)]
        cells.append(tag("td", "—" if step is None else f"{step:,}", class_="number"))
        told = [text(result.subject.get(key)) for key in unequal]
        cells += [tag("td", each, class_=length(each)) for each in told]
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


def environment_table(report: Report) -> Markup:
    """What runs were trained with by their settings, and where their results were made; equal ones in one row."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for number, run in enumerate(report.runs):
        trained = [text(run.setting(f"trainer.{key}")) for key in ("accelerator", "devices", "precision")]
        made = dict.fromkeys(str(result.environment.device) for result in run.results)
        versions = dict.fromkeys(versions_of(result) for result in run.results)
        cells = (
            "{}, devices {}, precision {}".format(*trained) if run.config else "not known",
            "; ".join(made) or "no results",
            "; ".join(versions) or "stored with results only",
        )
        found.setdefault(cells, []).append(number)
    rows = []
    for cells, runs in found.items():
        names = ["all runs"] if len(runs) == len(report.runs) > 1 else [tag("div", run_name(report, k)) for k in runs]
        rows.append([tag("th", names, scope="row"), *(tag("td", cell, class_=length(cell)) for cell in cells)])
    head = ["run", "trained with", "evaluated on", "versions then"]
    return boxed(table(head, rows, "Environment of each run"), "Environment")


def length(text: str) -> str | None:
    """The class of a cell whose text would be squeezed to a column of syllables on a narrow screen."""
    return "long" if len(text) > 24 else None


def versions_of(result: Result) -> str:
    versions = result.environment.versions
    return (
        ", ".join(f"{key} {value}" for key, value in versions.items()) if isinstance(versions, dict) else text(versions)
    )
