"""Read results of evaluate.py and group those that can be compared: equal names and equal protocols."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpm.checkpoint import groups
from ddpm.config.option_names import name_option
from ddpm.config.run_settings import format_setting
from ddpm.evaluation.comparison import protocol, read_upgraded
from ddpm.metrics.protocol import Result
from ddpm.metrics.score import Estimate

HOW = {"weights": "weights", "sampler": "sampler", "steps": "sampling steps", "seed": "seed", "clip": "clip"}
HOW |= {name: name for name in ("guides_sha256", "labels", "conditions_from", "image_shape", "precision")}
"""Fields of a result's subject that distinguish rows, besides run and step."""


def read_results(folder: Path) -> tuple[list[Result], list[str]]:
    """The results in a folder, and a sentence for each file that cannot be read."""
    found: list[Result] = []
    failed: list[str] = []
    for path in [*sorted(folder.glob("evaluations/*.json")), *sorted(folder.glob("checkpoints/*.json"))]:
        try:
            found.append(read_upgraded(path))
        except (ValueError, OSError) as error:
            failed.append(f"{path.parent.name}/{path.name} cannot be read: {str(error).replace(str(path), 'it')}.")
    return found, failed


@dataclass(eq=False)
class Row:
    """A result and the number of its run. step: None if unknown. how: how and where its images were generated."""

    run: int
    result: Result

    def __post_init__(self) -> None:
        subject, where = self.result.subject, self.result.environment
        self.step = step if type(step := subject.get("step")) is int else None
        headings = {**{g: g for g in groups.group_names(decides_images=True)}, **HOW}
        settings = {heading: subject[key] for key, heading in headings.items() if key in subject}
        settings = {key: name_option(value) if isinstance(value, str) else value for key, value in settings.items()}
        about = {"on": where.device, "processor": where.processor, "processes": where.num_processes}
        about |= {"commit": where.commit, "versions": where.versions}
        self.how = {key: format_setting(value) for key, value in {**settings, **about}.items()}


def measurement_settings(metric: str, result: Result) -> tuple[dict[str, Any], str]:
    """What must be equal for two values to be compared: fields of the protocol, and settings of the score.

    For "fid_mnist_1k", the settings are those of "scores.fid"; if no score has the name, those of all scores.
    """
    fields = protocol(result)
    scores = {key: fields.pop(key) for key in list(fields) if key.partition(".")[0] == "scores"}
    own = max((key for key in scores if f"scores.{metric}_".startswith(f"{key}_")), key=len, default=None)
    return fields, format_setting(scores[own]) if own else format_setting(scores)


def comparisons(rows: Iterable[Row]) -> list[tuple[dict[str, Any], list[Row]]]:
    """The protocols (without settings of scores), each with the rows of its table."""
    found: dict[str, tuple[dict[str, Any], list[Row]]] = {}
    for row in rows:
        fields, _ = measurement_settings("", row.result)
        found.setdefault(repr(fields), (fields, []))[1].append(row)
    return list(found.values())


def newest_rows(rows: list[Row]) -> list[Row]:
    """The results of the last step for each run and each way of sampling, in the order of their numbers."""
    ordered = sorted(rows, key=lambda row: row.step or -1)
    last = {(row.run, *row.how.values()): row.step for row in ordered}
    newest = (row for row in ordered if row.step == last[row.run, *row.how.values()])
    return sorted(newest, key=lambda row: (row.run, by_numbers(str(row.how))))


def by_numbers(text: str) -> list[str | float]:
    """A key of sorting by which scale=2 is before scale=10."""
    return [float(part) if k % 2 else part for k, part in enumerate(re.split(r"(\d+(?:\.\d+)?)", text))]


def metric_columns_of(rows: Sequence[Row]) -> dict[tuple[str, str], list[Estimate | None]]:
    """(metric, settings of the score) -> one value per row, or None."""
    found: dict[tuple[str, str], list[Estimate | None]] = {}
    for k, row in enumerate(rows):
        for metric, value in row.result.estimates.items():
            found.setdefault((metric, measurement_settings(metric, row.result)[1]), [None] * len(rows))[k] = value
    return found
