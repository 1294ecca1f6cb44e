"""The labels of images: chosen among what their source has (`data.labels`), and what to say where there are none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ddpm.base import check
from ddpm.base.untrusted import text_file
from ddpm.data.problems import Problem
from ddpm.data.sources import tables
from ddpm.data.sources.base import Column, Images
from ddpm.data.sources.class_numbers import number_classes

MAX_NAMED = 20


def columns_of(images: Images) -> dict[str, Column]:
    """What can be labels, by the value of data.labels."""
    return getattr(images, "columns", dict)()


def with_labels(images: Any, labels: str, name: str) -> Any:
    """The images with other labels. labels: data.labels, one of `columns_of`, or TABLE:COLUMN for a table elsewhere."""
    path, _, column = labels.rpartition(":")
    found = columns_of(images)
    if labels not in found and Path(path).is_file() and hasattr(images, "names"):
        found = tables.columns(text_file(Path(path)), images.names, path, "", images.root)
        labels = column
    if not found:
        can_have = path and hasattr(images, "names")
        table = f", or TABLE.csv:COLUMN of an existing file; {path} is none" if can_have else ""
        check.fail("data.labels", labels, f"null for data={name}, which has nothing to choose from{table}")
    if labels not in found and (problems := [found[each].where for each in found if is_table(each)]):
        known = ", ".join(each for each in found if not is_table(each))
        check.fail("data.labels", labels, f"{f'one of {known}' if known else 'null'} ({'; '.join(problems)})")
    chosen = found[check.one_of("data.labels", labels, found)]
    made = number_classes(chosen.read(), f"data.labels={labels}: a value", images.name, chosen.names)
    if made.problem:
        raise ValueError(made.problem)
    return replace(images, labels=made.numbers, class_names=made.names, label_problem="")


def is_table(name: str) -> bool:
    """Whether a name in `columns_of` is that of a table that cannot be used; its `where` is the reason."""
    return name.lower().endswith(tables.SUFFIXES)


def explain_no_labels(images: Images) -> str:
    """ ": REASON; data.labels can be ...", each part only if there is something to say."""
    problem, found = getattr(images, "label_problem", ""), columns_of(images)
    usable = [f"{name} ({column.where})" for name, column in found.items() if not is_table(name)]
    listed = ", ".join(usable[:MAX_NAMED])
    return (f": {problem}" if problem else "") + (f"; data.labels can be one of {listed}" if listed else "")


def unlabelled(images: Images) -> list[Problem]:
    """A problem for each image without a label."""
    numbers = (images.labels < 0).nonzero()[:, 0].tolist()
    return [Problem(number, images.name(number), "has no label") for number in numbers]
