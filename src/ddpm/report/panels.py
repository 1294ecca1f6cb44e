"""The charts of the page and their notes."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from ddpm.metrics.score import lower_is_better
from ddpm.report.charts import Curve, chart
from ddpm.report.report import Report
from ddpm.report.results import measurement_settings
from ddpm.report.series import smooth

SMOOTHED_FROM = 20  # rows
TITLES = {  # in order on the page, with the unit of the axis; "eval/" stands for all scores
    "train/loss": ("Training loss", "loss"),
    "val/loss": ("Validation loss", "loss"),
    "eval/": ("", ""),
    "train/grad_norm": ("Gradient norm", "norm"),
    "train/lr": ("Learning rate", "rate"),
    "sys/images_per_second": ("Images per second", "images / s"),
}
LINEAR = ("train/lr", "sys/images_per_second")
BAND = re.compile(r"train/loss_t/0*(\d{1,7})-0*(\d{1,7})")
MOST_BANDS = 20


def build_panels(report: Report) -> dict[str, list[dict[str, Any]]]:
    """main: charts that are always visible, in order. bands: the loss by time. rest: all other charts."""
    names = dict.fromkeys(name for run in report.runs for name in run.series.values if run.series.has(name))
    bands = dict(sorted((tuple(map(int, match.groups())), name) for name in names if (match := BAND.fullmatch(name))))
    left_out = {"train/epoch", "train/images", *bands.values(), *(f"{name}_error" for name in names)}
    names = [name for name in names if name not in left_out]
    main = [name for key in TITLES for name in names if name == key or (key == "eval/" and name.startswith(key))]
    rest = [name for name in names if name not in main]
    parts = {"main": main, "bands": [*bands.values()][:MOST_BANDS], "rest": rest}
    found = {
        key: [build_panel(report, n, *group) for n in each for group in group_panels(report, n)]
        for key, each in parts.items()
    }
    return found | {"bands": [final_values(report, bands), *found["bands"]] if bands else []}


def group_panels(report: Report, name: str) -> Iterator[tuple[list[int], str]]:
    """Groups of runs that can share a chart (for a score, those with one protocol), and what distinguishes them."""
    metric = name.removeprefix("eval/")
    ways: dict[frozenset[tuple[str, str]], list[int]] = {}
    for k, run in enumerate(report.runs):
        if run.series.has(name):
            results = [each for each in run.results if metric in each.metrics and metric != name]
            own = [each for each in results if "ckpt" not in each.subject] or results  # results during training
            measured = [measurement_settings(metric, each) for each in own]
            fields = [{**settings, "score": score} for settings, score in measured]
            ways.setdefault(frozenset((key, str(each[key])) for each in fields for key in each), []).append(k)
    every = set().union(*ways)
    differing = {key for key, _ in every if sum(key == other for other, _ in every) > 1}
    for way, runs in ways.items():
        shown = ", ".join(f"{key} {value}" for key, value in sorted(way) if key in differing)
        yield runs, f"protocol: {shown or 'not stored'}" if len(ways) > 1 else ""


def build_panel(report: Report, name: str, runs: list[int], protocol: str) -> dict[str, Any]:
    curves = [build_curve(report, k, name) for k in runs]
    metric, band = name.removeprefix("eval/"), BAND.fullmatch(name)
    title, unit = TITLES.get(name, (f"t = {band[1]} to {band[2]}", "loss") if band else (metric, metric))
    lower = lower_is_better(metric) if metric != name else None
    lacking = [report.labels[k] for k, run in enumerate(report.runs) if k not in runs and run.series.values]
    notes = [
        {None: "", True: "lower is better", False: "higher is better"}[lower],
        protocol,
        "the same for all runs" if curves[1:] and all(np.array_equal(c.y, curves[0].y) for c in curves) else "",
        "smoothed" if any(c.faint is not None for c in curves) else "",
        f"not logged by {', '.join(lacking)}" if lacking and not protocol else "",
    ]
    about = f"{title} over steps of {', '.join(report.labels[k] for k in runs)}"
    drawing = chart(curves, "step", unit, about, name not in LINEAR)
    return {"title": title, "notes": " · ".join(filter(None, notes)), "chart": drawing, "curves": curves}


def build_curve(report: Report, number: int, name: str) -> Curve:
    series = report.runs[number].series
    found = Curve(report.labels[number], number, *series.points(name), odd=series.not_finite.get(name, np.zeros(0)))
    errors = series.values.get(f"{name}_error")
    if errors is not None:
        found.error = np.abs(np.nan_to_num(errors[np.isfinite(series.values[name])], posinf=0, neginf=0))
    elif name != "train/lr" and name.startswith(("train/", "sys/")) and len(found.y) >= SMOOTHED_FROM:
        found.faint, found.y = found.y, smooth(found.y)
    return found


def final_values(report: Report, bands: dict[tuple[int, int], str]) -> dict[str, Any]:
    curves = []
    for k, run in enumerate(report.runs):
        logged = {sum(t) / 2: values for t, name in bands.items() if len(values := run.series.points(name)[1])}
        ends = [values[-max(1, len(values) // 10) :].mean() for values in logged.values()]
        curves.append(Curve(report.labels[k], k, np.array([*logged]), np.array(ends)))
    drawing = chart(curves, "time t", "loss", "Loss at the end of training by time t")
    return {"title": "At the end", "notes": "mean over the last tenth of the rows", "chart": drawing, "curves": curves}
