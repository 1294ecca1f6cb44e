"""Differences of results of evaluate.py from the first of them, with standard errors.

Results with different protocols are refused, because a protocol can change values by more than models differ.

The standard error of a difference is sqrt(e1^2 + e2^2), which assumes independent errors. This holds for errors over
draws of generated images, as FID and KID have them. Such errors do not include the choice of the reference images,
which both results share and which shifts both values alike. If the errors are over the real images (recall, coverage),
or if both models start from the noise of one seed, the true error of the difference is smaller than the printed one.
"""

import dataclasses
import json
import math
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

from ddpm.base.differing import differing
from ddpm.base.nested import flatten
from ddpm.checkpoint import groups
from ddpm.checkpoint.upgrade import upgrade, upgrade_text
from ddpm.config.option_names import TARGET, name_option
from ddpm.config.run_settings import differing_settings, read_config, run_labels, subject_settings
from ddpm.evaluation.table import LEGEND, align_columns, best_marks, format_estimate, titled_table, with_arrow
from ddpm.metrics.protocol import Result, read_result
from ddpm.metrics.score import Estimate, lower_is_better

CLEAR_Z = 2.0
"""Smallest |z| that is reported as a difference; equal models reach it in 1 of 22 comparisons."""

ABSENT = "absent"
HASH = re.compile(r"\b[0-9a-f]{40,64}\b")


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of `other` minus `first` in one metric. error: None if either has none; z: difference / error."""

    metric: str
    first: str
    other: str
    values: tuple[Estimate, Estimate]

    @property
    def difference(self) -> float:
        return self.values[1].value - self.values[0].value

    @property
    def error(self) -> float | None:
        errors = [estimate.error for estimate in self.values]
        return None if None in errors else math.hypot(*errors)

    @property
    def z(self) -> float | None:
        return self.difference / self.error if self.error else None

    @property
    def verdict(self) -> str:
        """How `other` is beside `first`."""
        if self.difference == 0:
            return "equal"
        if self.z is None:
            return "no error bars"
        if abs(self.z) < CLEAR_Z:
            return f"no difference beyond the error bars (|z| < {CLEAR_Z:g})"
        is_lower = self.difference < 0
        lower = lower_is_better(self.metric)
        judgement = "" if lower is None else f", which is {'better' if lower == is_lower else 'worse'}"
        which = "lower" if is_lower else "higher"
        return f"{which} by {abs(self.z):.1f} standard errors{judgement}"


def compare_results(results: Mapping[str, Result]) -> list[Difference]:
    """The differences in each metric that all results have. ValueError if protocols differ or no metric is shared."""
    (first, reference), *others = results.items()
    conflicts = []
    for name, other in others:
        for field, values in differing(protocol(reference), protocol(other), absent=ABSENT).items():
            one_has_not_this_score = field.startswith("scores.") and ABSENT in values
            if not one_has_not_this_score:
                conflicts.append(f"  {field}: {values[0]!r} in {first}, {values[1]!r} in {name}")
    if conflicts:
        raise ValueError("\n".join(["the results have different protocols, so they cannot be compared:", *conflicts]))
    shared = shared_metrics(results)
    if not shared:
        having = [f"  {name} has {', '.join(result.metrics) or 'none'}" for name, result in results.items()]
        raise ValueError("\n".join(["the results have no metric in common:", *having]))
    return [
        Difference(metric, first, name, (reference.estimates[metric], other.estimates[metric]))
        for metric in shared
        for name, other in others
    ]


def shared_metrics(results: Mapping[str, Result]) -> list[str]:
    first, *others = results.values()
    return [metric for metric in first.metrics if all(metric in other.metrics for other in others)]


def protocol(result: Result) -> dict[str, Any]:
    """The fields of its protocol by dotted names, as `scores.fid`."""
    return flatten(dataclasses.asdict(result.protocol))


def context_differences(results: Mapping[str, Result], part: str) -> dict[str, dict[str, Any]]:
    """Fields of "subject" or "environment" (part) that differ: name -> result -> value."""
    parts = [flatten(dataclasses.asdict(result)[part]) for result in results.values()]
    return {name: dict(zip(results, values, strict=True)) for name, values in differing(*parts, absent=ABSENT).items()}


def format_comparison(results: Mapping[str, Result], paths: Mapping[str, Path], found: Sequence[Difference]) -> str:
    lines = [align_columns([(name, str(paths[name])) for name in results])]
    rows = [("metric", "", "value", "", "minus the first", "")]
    for metric in dict.fromkeys(difference.metric for difference in found):
        values = [result.estimates[metric] for result in results.values()]
        of_metric = [difference for difference in found if difference.metric == metric]
        gaps = ["", *(format_estimate(Estimate(each.difference, each.error)) for each in of_metric)]
        verdicts = ["", *(each.verdict for each in of_metric)]
        heads = [with_arrow(metric), *("" for _ in of_metric)]
        texts, marks = [format_estimate(value) for value in values], best_marks(values, metric)
        rows += zip(heads, results, texts, marks, gaps, verdicts, strict=True)
    lines += ["", align_columns(rows), LEGEND]
    only_in_some = not_compared(results)
    if only_in_some:
        lines += ["", "not compared, since not in all results: " + ", ".join(only_in_some)]
    for part, title in (
        ("subject", "differs in what was measured"),
        ("environment", "differs in the environment, which may change the last digits"),
    ):
        fields = context_differences(results, part)
        fields.pop("command", None)  # it differs with the settings, and changes no digits
        cells = {field: {name: short(value) for name, value in each.items()} for field, each in fields.items()}
        table = "\n" + indent(titled_table(cells), "  ") if cells else " nothing"
        lines += ["", f"{title}:{table}"]
    return "\n".join(lines)


def short(value: Any) -> str:
    """A value of a table: parts by their options, hashes by their first digits."""
    return HASH.sub(lambda found: found[0][:12], name_option(value))


def not_compared(results: Mapping[str, Result]) -> list[str]:
    metrics = dict.fromkeys(metric for result in results.values() for metric in result.metrics)
    shared = shared_metrics(results)
    return [metric for metric in metrics if metric not in shared]


def as_json(results: Mapping[str, Result], paths: Mapping[str, Path], differences: Sequence[Difference]) -> str:
    metrics = {}
    for metric in shared_metrics(results):
        metrics[metric] = {
            "lower_is_better": lower_is_better(metric),
            "values": {name: result.estimates[metric]._asdict() for name, result in results.items()},
            "differences": {
                each.other: {field: getattr(each, field) for field in ("difference", "error", "z", "verdict")}
                for each in differences
                if each.metric == metric
            },
        }
    content = {
        "results": {name: str(path) for name, path in paths.items()},
        "metrics": metrics,
        "not_compared": not_compared(results),
        "subject": context_differences(results, "subject"),
        "environment": context_differences(results, "environment"),
    }
    return json.dumps(content, indent=2, allow_nan=False)


def read_upgraded(path: Path) -> Result:
    """A result with current names, whichever version wrote it."""
    result = read_result(path)
    scores = {name: upgrade_text(text) for name, text in result.protocol.scores.items()}
    measured = dataclasses.replace(result.protocol, scores=scores)
    return dataclasses.replace(result, protocol=measured, subject=upgrade(result.subject))


def read_results(paths: Sequence[Path]) -> dict[str, Result]:
    """Results in the order of the paths, by the settings that differ, or by the letters a, b, c and so on."""
    if not 2 <= len(paths) <= len(string.ascii_lowercase):
        raise ValueError(f"2 to {len(string.ascii_lowercase)} results are compared, got {len(paths)}")
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f"results must be files that evaluate.py wrote, and these do not exist: {', '.join(missing)}")
    results = [read_upgraded(path) for path in paths]
    return dict(zip(result_names(paths, results), results, strict=True))


def unstated_settings(subject: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the groups that the subject leaves out, as guidance=none, flat; see
    `ddpm.generation.identity.image_settings`. Stored images, which come from no model, have none."""
    older = groups.old_config_defaults() if "model" in subject else {}
    decisive = {*groups.group_names(decides_images=True)} - {*subject}
    return flatten({group: part for group, part in older.items() if group in decisive})


def result_names(paths: Sequence[Path], results: Sequence[Result]) -> list[str]:
    """Names by the settings that differ: those of the subjects and, if all runs are there, of the runs."""
    own = [unstated_settings(result.subject) | subject_settings(result.subject) for result in results]
    try:
        runs = [read_config(path.absolute().parents[1]) for path in paths]
    except (ValueError, OSError):
        runs = [{}]
    for run, settings in zip(runs, own, strict=True) if all(runs) else ():
        replaced = tuple(key.removesuffix(TARGET) for key in settings if key.endswith(f".{TARGET}"))
        settings |= {key: value for key, value in run.items() if key not in settings and not key.startswith(replaced)}
    return run_labels(differing_settings(own)[0], string.ascii_lowercase[: len(results)])
