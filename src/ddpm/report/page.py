"""The page: one HTML file that needs nothing beside it, and in which no script runs."""

from datetime import datetime

from ddpm.report import figures, gallery, tables
from ddpm.report.curves import swatch
from ddpm.report.markup import Markup, joined, named, tag
from ddpm.report.report import Report
from ddpm.report.style import STYLE

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""For the browser: whatever a name out of a file should manage to become, nothing is run and nothing is fetched."""

SECTIONS = (
    ("runs", "Runs"),
    ("results", "Results"),
    ("curves", "Curves"),
    ("times", "Loss by time"),
    ("samples", "Samples"),
    ("denoising", "Denoising"),
    ("reproduce", "Reproduce"),
)


def page(report: Report) -> str:
    parts = {
        "runs": runs(report),
        "results": results(report),
        "curves": figures.curves(report),
        "times": figures.by_time(report),
        "samples": gallery.grids(report),
        "denoising": gallery.strips(report),
        "reproduce": reproduce(report),
    }
    sections = [tag("section", tag("h2", name), parts[key], id=key) for key, name in SECTIONS]
    links = [tag("li", tag("a", name, href=f"#{key}")) for key, name in SECTIONS]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title(report)),
        tag("style", Markup(STYLE)),
    )
    body = tag(
        "body",
        tag("a", "To the content", href="#content", class_="skip"),
        tag("header", tag("nav", tag("ul", links), aria_label="Sections")),
        tag("main", tag("h1", title(report)), tag("p", summary(report), class_="summary"), sections, id="content"),
        tag("footer", tag("p", f"Made by python -m ddpm.report on {when(datetime.now())}.")),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def title(report: Report) -> str:
    if len(report.runs) == 1:
        return report.runs[0].name
    parents = {run.folder.resolve().parent.name for run in report.runs}
    swept = all("/" in run.name for run in report.runs)
    return parents.pop() if swept and len(parents) == 1 else f"{len(report.runs)} runs compared"


def summary(report: Report) -> str:
    """Runs, steps, dates, in one line."""
    steps = sorted({run.series.last_step for run in report.runs if run.series.last_step is not None})
    num = len(report.runs)
    told = [f"{num} run{'s' if num > 1 else ''}"]
    if len(steps) == 1:
        told.append(f"{steps[0]:,} steps{' each' if num > 1 else ''}")
    elif steps:
        told.append(f"{steps[0]:,} to {steps[-1]:,} steps")
    begun = min((run.begun for run in report.runs if run.begun), default=None)
    changed = max((run.changed for run in report.runs if run.changed), default=None)
    if begun and changed and begun.date() != changed.date():
        told.append(f"{when(begun)} to {when(changed)}")
    elif begun:
        until = f" to {changed:%H:%M}" if changed and changed > begun else ""
        told.append(f"{when(begun)}{until}")
    columns = list(report.differences.columns)
    if columns:
        told.append(f"differing in {', '.join(columns[:6])}{' and more' if len(columns) > 6 else ''}")
    elif num > 1:
        told.append("all with the same settings")
    return " · ".join(told)


def when(time: datetime) -> str:
    return f"{time.day} {time:%B %Y, %H:%M}"


def runs(report: Report) -> Markup:
    notes = [
        tag("li", swatch(number), named(report.labels[number]), ": ", " ".join(run.notes))
        for number, run in enumerate(report.runs)
        if run.notes
    ]
    return joined(
        tables.runs_table(report),
        tag("ul", notes, class_="notes") if notes else None,
        tables.common_settings(report),
    )


def results(report: Report) -> Markup:
    num = len(report.comparisons)
    parts: list[object] = []
    if num == 0:
        how = tag("code", "python evaluate.py ckpt=RUN/checkpoints/last.ckpt metric=fid")
        parts.append(tag("p", "There are no results yet. ", how, " writes one to RUN/evaluations."))
    else:
        parts.append(
            tag(
                "p",
                "Values with their standard errors, at the last step of each run that was measured. ",
                *(tag("span", "best", class_="mark"), " is marked within one protocol; "),
                *(tag("span", "≈ best", class_="mark near"), " is no further from it than two standard errors "),
                "of the difference.",
            )
        )
    if num > 1:
        parts.append(tag("p", f"They were measured in {num} ways, so they are {num} tables.", class_="note"))
    parts += [
        tables.comparison_section(report, place, number, num)
        for number, place in enumerate(report.comparisons, start=1)
    ]
    broken = [
        tag("li", swatch(k), named(report.labels[k]), ", ", tag("code", each.file), ": ", each.reason)
        for k, run in enumerate(report.runs)
        for each in run.unreadable
    ]
    if broken:
        count = "1 file" if len(broken) == 1 else f"{len(broken)} files"
        parts.append(tag("details", tag("summary", f"{count} could not be read"), tag("ul", broken, class_="notes")))
    return joined(parts)


def reproduce(report: Report) -> Markup:
    commands = [
        tag("div", tag("p", tables.run_name(report, k)), shell(command))
        if command is not None
        else tag(
            "div", tag("p", tables.run_name(report, k), ": its settings are not known, so neither is its command.")
        )
        for k, command in enumerate(report.commands)
    ]
    return joined(
        tag("p", "In the repository's folder, with the same version of its code:"),
        [tag("p", "All of them, one after the other"), shell(report.sweep)] if report.sweep else None,
        tag("details", tag("summary", "Each by itself"), commands) if report.sweep else commands,
        tag("h3", "Environment"),
        tables.environment_table(report),
    )


def shell(command: str) -> Markup:
    return tag("pre", tag("code", command), tabindex="0")
