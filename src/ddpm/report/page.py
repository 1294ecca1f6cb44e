"""The report page: one self-contained HTML file without scripts."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ddpm.base.differing import differing
from ddpm.config.run_settings import Columns, format_setting, resolve_reference
from ddpm.evaluation.table import best_rows
from ddpm.metrics.score import lower_is_better
from ddpm.report.charts import NUM_COLOURS, format_rounded
from ddpm.report.panels import build_panels
from ddpm.report.report import Report
from ddpm.report.results import HOW, Row, metric_columns_of, newest_rows

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Content security policy: the browser runs no script and loads nothing, whatever names in files contain."""

NOT_SHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that HTML forbids."""

SAME_NOISE = ("seed", "data.size", "data.channels")
MOST_COLUMNS = 6  # settings that differ, beside each run; the others are folded
MEANING_OF_LOSS = ("objective", "weight", "error", "loss", "schedule", "time_sampler", "process", "data", "codec")


def page(report: Report) -> str:
    templates = Environment(loader=PackageLoader("ddpm.report"), autoescape=True, undefined=StrictUndefined)
    templates.trim_blocks = templates.lstrip_blocks = True
    templates.filters["plain"] = lambda v: "—" if v is None else f"{v:,}" if type(v) is int else format_setting(v)
    sweeps = {run.name.rpartition("/")[0] for run in report.runs}
    names = [run.name for run in report.runs] if len(report.runs) == 1 else [*sweeps - {""}] if len(sweeps) == 1 else []
    content = templates.get_template("page.html").render(
        **vars(report),
        **build_panels(report),
        columns_of=report.columns,
        title=names[0] if names else f"{len(report.runs)} runs compared",
        results_by_protocol=[
            (rows, newest_rows(rows), f | dict(metric_columns_of(rows).keys())) for f, rows in report.comparisons
        ],
        table=partial(results_table, report.columns),
        most_columns=MOST_COLUMNS,
        distinct=distinct_fields([fields for fields, _ in report.comparisons]),
        loss_differs_in=", ".join(key for key in report.columns if key.partition(".")[0] in MEANING_OF_LOSS),
        kinds=[*dict.fromkeys(kind for album in report.albums for kind in album if kind)],
        same_noise=len({str([resolve_reference(r.config, key) for key in SAME_NOISE]) for r in report.runs if r.config})
        == 1,
        policy=POLICY,
        num_colours=NUM_COLOURS,
    )
    return NOT_SHOWN.sub("\N{REPLACEMENT CHARACTER}", content)


def distinct_fields(protocols: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The fields of each protocol that are not the same in all. Hashes are numbered."""
    found = differing(*protocols) if protocols[1:] else {}
    for key, values in found.items():
        if key.endswith("hash"):
            kinds = [*dict.fromkeys(values)]
            found[key] = tuple(f"{kinds.index(value) + 1} of {len(kinds)}" for value in values)
    return [{key: format_setting(values[k]) for key, values in found.items()} for k in range(len(protocols))]


def results_table(columns: Columns, rows: list[Row], marks: bool) -> dict[str, Any]:
    """Template variables of a table. shown: fields that differ between rows, except for settings of the run, which its
    name stands for. metrics: (name, lower is better, cells, marks)."""
    different = [*differing(*(row.how for row in rows))]
    shown = [key for key in different if not is_of_run(key, columns, rows)]
    found, metrics = metric_columns_of(rows), []
    for (metric, score), values in found.items():
        top, near = best_rows(values, lower_is_better(metric)) if marks else ((), ())
        marked = ["best" if k in top else "≈ best" if k in near else "" for k in range(len(rows))]
        name = f"{metric} ({score})" if [m for m, _ in found].count(metric) > 1 else metric
        metrics.append((name, lower_is_better(metric), [format_rounded(*v) if v else "—" for v in values], marked))
    shared = {key: value for key, value in rows[0].how.items() if key not in different}
    return {"rows": rows, "shown": shown, "shared": shared, "metrics": metrics}


def is_of_run(key: str, columns: Columns, rows: Sequence[Row]) -> bool:
    """Whether a field is among the settings in which the runs differ, and has one value for each run."""
    setting = {heading: field for field, heading in HOW.items()}.get(key, key)
    is_a_column = any(setting in (column, *column.split(".")) for column in columns)
    return is_a_column and len({(row.run, row.how.get(key)) for row in rows}) == len({row.run for row in rows})
