"""Which curves the page has, and what must be said beside them."""

import numpy as np

from ddpm.metrics.directions import lower_is_better
from ddpm.report.bands import bands, common_range, heat_map, scale_bar
from ddpm.report.curves import Curve, chart, legend
from ddpm.report.markup import Markup, joined, tag
from ddpm.report.report import Report
from ddpm.report.results import circumstances, frozen
from ddpm.report.series import smoothed
from ddpm.report.tables import run_name

SMOOTHED_FROM = 20  # rows
TITLES = {
    "train/loss": "Training loss",
    "val/loss": "Validation loss",
    "train/grad_norm": "Gradient norm",
    "train/lr": "Learning rate",
    "sys/images_per_second": "Images per second",
}
UNITS = {"train/grad_norm": "norm", "train/lr": "rate", "sys/images_per_second": "images / s"}
ORDER = ("train/loss", "val/loss", "eval/", "train/grad_norm", "train/lr", "sys/images_per_second")
NOT_DRAWN = ("train/epoch", "train/images")
MEANING_OF_LOSS = ("objective", "weight", "distance", "loss", "schedule", "timesteps", "process", "data", "codec")
LINEAR = ("train/lr", "sys/images_per_second")


def drawn_names(report: Report) -> tuple[list[str], list[str]]:
    """The series that are always shown, in their order, and the rest."""
    names = dict.fromkeys(name for run in report.runs for name in [*run.series.names, *run.series.not_finite])
    kept = [n for n in names if n not in NOT_DRAWN and "/loss_t/" not in n and not is_error(n, names)]
    main = [n for start in ORDER for n in kept if n == start or (start.endswith("/") and n.startswith(start))]
    return main, [n for n in kept if n not in main]


def is_error(name: str, names: dict[str, None]) -> bool:
    return name.endswith("_error") and name.removesuffix("_error") in names


def curve(report: Report, number: int, name: str) -> Curve:
    series = report.runs[number].series
    steps, values = series.points(name)
    found = Curve(report.labels[number], number, steps, values, odd=series.not_finite.get(name, np.zeros(0)))
    errors = series.values.get(f"{name}_error")
    if errors is not None:
        there = np.isfinite(series.values[name])
        found.error = np.abs(np.nan_to_num(errors[there], nan=0.0, posinf=0.0, neginf=0.0))
    elif name != "train/lr" and name.startswith(("train/", "sys/")) and len(values) >= SMOOTHED_FROM:
        found.faint, found.y = values, smoothed(values)
    return found


def groups(report: Report, name: str) -> list[tuple[str, list[int]]]:
    """Runs that may share a drawing: of a score, those with one protocol for it. What tells the others apart first."""
    having = [
        k for k, run in enumerate(report.runs) if len(run.series.points(name)[0]) or name in run.series.not_finite
    ]
    if not name.startswith("eval/"):
        return [("", having)]
    metric = name.removeprefix("eval/")
    ways: dict[str, list[int]] = {}
    fields: dict[str, list[dict]] = {}
    for k in having:
        results = [result for result in report.runs[k].results if metric in result.metrics]
        own = [result for result in results if "ckpt" not in result.subject] or results  # those of the training itself
        found = {frozen(circumstances(metric, result)): circumstances(metric, result) for result in own}
        key = frozen(sorted(found))
        ways.setdefault(key, []).append(k)
        fields[key] = list(found.values())
    if len(ways) == 1:
        return [("", having)]
    told = []
    for key, runs in ways.items():
        differing = [
            f"{field} {value}"
            for each in fields[key]
            for field, value in each.items()
            if any(value != other.get(field) for way in fields.values() for other in way)
        ]
        told.append((", ".join(dict.fromkeys(differing)) or "protocol not stored", runs))
    return told


def panel(report: Report, name: str, runs: list[int], told: str) -> Markup:
    curves = [curve(report, k, name) for k in runs]
    title = TITLES.get(name, name.removeprefix("eval/"))
    side = lower_is_better(name.removeprefix("eval/")) if name.startswith("eval/") else None
    hint = {True: "lower is better", False: "higher is better", None: ""}[side]
    notes = [
        hint,
        f"protocol: {told}" if told else "",
        "smoothed, with the numbers themselves behind" if any(c.faint is not None for c in curves) else "",
    ]
    lacking = [report.labels[k] for k, run in enumerate(report.runs) if k not in runs and run.series.names]
    which = ", ".join(lacking) if len(lacking) < 4 else f"{len(lacking)} of the runs"
    notes.append(f"not logged by {which}" if lacking and not told else "")
    about = f"{title} over steps of {', '.join(report.labels[k] for k in runs)}"
    return tag(
        "figure",
        tag("figcaption", tag("h3", title), tag("small", " · ".join(filter(None, notes)))),
        chart(curves, "step", unit(name), about, log=False if name in LINEAR else None),
        tag("p", "The same for all runs.", class_="quiet") if all_equal(curves) else legend(curves),
        class_="panel",
    )


def all_equal(curves: list[Curve]) -> bool:
    first = curves[0]
    return len(curves) > 1 and all(np.array_equal(c.x, first.x) and np.array_equal(c.y, first.y) for c in curves[1:])


def unit(name: str) -> str:
    return UNITS.get(name, name.rpartition("/")[2])


def curves(report: Report) -> Markup:
    main, rest = drawn_names(report)
    if not main and not rest:
        return tag("p", "No run has logged numbers yet, so there are no curves.")
    parts: list[object] = [loss_note(report)]
    for names, place in ((main, lambda panels: panels), (rest, more)):
        panels = [panel(report, name, runs, told) for name in names for told, runs in groups(report, name) if runs]
        if panels:
            parts.append(place(tag("div", panels, class_="panels")))
    return joined(parts)


def more(panels: Markup) -> Markup:
    return tag("details", tag("summary", "Other numbers"), panels)


def loss_note(report: Report) -> Markup | None:
    """Losses of different meaning share a drawing, since their shapes may be compared, but not their heights."""
    differing = [key for key in report.differences.columns if key.partition(".")[0] in MEANING_OF_LOSS]
    if not differing:
        return None
    told = " and ".join(filter(None, [", ".join(differing[:-1]), differing[-1]]))
    return tag(
        "p",
        f"These runs differ in {told}: their losses measure different things, so compare the shapes of their curves "
        "and not the heights. Which run is better, evaluate.py tells.",
        class_="note",
    )


def by_time(report: Report) -> Markup:
    found = [(k, each) for k, run in enumerate(report.runs) if (each := bands(run.series)) is not None]
    if not found:
        return tag("p", "No run has logged its loss by time t.")
    profiles = []
    for k, each in found:
        end = each.at_the_end()
        there = np.isfinite(end)
        profiles.append(Curve(report.labels[k], k, each.middle[there], end[there]))
    limits = common_range([each for _, each in found])
    profile = tag(
        "figure",
        tag("figcaption", tag("h3", "At the end"), tag("small", "mean over the last tenth of the rows")),
        chart(profiles, "time t", "loss", "Loss at the end of training by time t"),
        legend(profiles),
        class_="panel",
    )
    maps = [
        tag(
            "figure",
            tag("figcaption", tag("h3", run_name(report, k)), tag("small", "over steps")),
            heat_map(each, limits, report.labels[k]),
            class_="panel",
        )
        for k, each in found
    ]
    lacking = [report.labels[k] for k in range(len(report.runs)) if k not in dict(found)]
    return joined(
        tag("p", f"Not logged by {', '.join(lacking)}.") if lacking else None,
        tag("div", profile, maps, class_="panels"),
        tag("p", "Colour is the loss, on one scale for all runs: ", scale_bar(*limits), class_="quiet"),
    )
