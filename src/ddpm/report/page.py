"""The page: one HTML file that needs nothing beside it, and in which no script runs."""

import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ddpm.base.differing import differing
from ddpm.metrics.score import lower_is_better
from ddpm.report.charts import NUM_COLOURS, format_rounded
from ddpm.report.panels import build_panels
from ddpm.report.report import Report
from ddpm.report.results import Row, best_rows, metric_columns_of, newest_rows
from ddpm.report.settings import format_setting, resolve_reference

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""For the browser: whatever a name out of a file should manage to become, nothing is run and nothing is fetched."""

NOT_SHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that HTML forbids."""

SAME_NOISE = ("seed", "data.size", "data.channels")
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
        title=names[0] if names else f"{len(report.runs)} runs compared",
        results_by_protocol=[
            (f, rows, newest_rows(rows), f | dict(metric_columns_of(rows).keys())) for f, rows in report.comparisons
        ],
        table=results_table,
        distinct=[*differing(*(fields for fields, _ in report.comparisons))] if report.comparisons[1:] else [],
        loss_differs_in=" and ".join(key for key in report.columns if key.partition(".")[0] in MEANING_OF_LOSS),
        kinds=[*dict.fromkeys(kind for album in report.albums for kind in album if kind)],
        same_noise=len({str([resolve_reference(r.config, key) for key in SAME_NOISE]) for r in report.runs if r.config})
        == 1,
        policy=POLICY,
        num_colours=NUM_COLOURS,
    )
    return NOT_SHOWN.sub("\N{REPLACEMENT CHARACTER}", content)


def results_table(rows: list[Row], marks: bool) -> dict[str, Any]:
    """shown: what distinguishes the rows, beside run and step. metrics: (name, lower is better, cells, marks)."""
    shown = [*differing(*(row.how for row in rows))]
    found, metrics = metric_columns_of(rows), []
    for (metric, score), values in found.items():
        top, near = best_rows(values, lower_is_better(metric)) if marks else ((), ())
        marked = ["best" if k in top else "≈ best" if k in near else "" for k in range(len(rows))]
        name = f"{metric} ({score})" if [m for m, _ in found].count(metric) > 1 else metric
        metrics.append((name, lower_is_better(metric), [format_rounded(*v) if v else "—" for v in values], marked))
    shared = ", ".join(f"{key} {value}" for key, value in rows[0].how.items() if key not in shown)
    return {"rows": rows, "shown": shown, "shared": shared, "metrics": metrics}
