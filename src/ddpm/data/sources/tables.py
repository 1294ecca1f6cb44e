"""Tables beside images, .csv, .tsv or .jsonl: a row for each image, and a column that names it."""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from ddpm.base.untrusted import json_data
from ddpm.data.sources.base import Column

SUFFIXES = (".csv", ".tsv", ".jsonl")
FILE_NAME = "file_name"
"""The column of names in the layout of Hugging Face's ImageFolder. In other tables, it is found by its values."""
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})(\.0+)?")


def json_rows(text: str, where: str) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a .jsonl file with their line numbers. where: its path."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    rows = [(number, json_data(line, f"{where}, line {number}")) for number, line in lines]
    for number, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f'{where}, line {number} must be an object, as {{"file_name": "1.png", "label": "cat"}}')
    return rows


def read_rows(text: str, where: str) -> list[dict[str, Any]]:
    if where.lower().endswith(".jsonl"):
        return [row for _, row in json_rows(text, where)]
    text = text.removeprefix("\ufeff")
    header = text.partition("\n")[0]
    try:
        return list(csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=header.count)))
    except csv.Error as error:
        raise ValueError(f"{where} cannot be read as a table: {error}") from error


def columns(text: str, names: Sequence[str], where: str, folder: str) -> dict[str, Column]:
    """The columns of a table, but for the one that names the images `names`. Empty if none names an image.

    folder: of the table. An image may be named by its path from there or from the root, or, if only one has it, by the
    last part of its path with or without the extension.
    """
    rows, number = read_rows(text, where), numbers_of(names)

    def find(value: Any) -> int | None:
        name = str(value).replace("\\", "/").removeprefix("./")
        return number.get((PurePosixPath(folder) / name).as_posix(), number.get(name))

    found = {
        name: [find(row.get(name)) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)
    }
    key = FILE_NAME if FILE_NAME in found else max(found, key=lambda name: len({*found[name], None}), default="")
    if not {*found.get(key, ()), None} - {None}:
        return {}

    def read(name: str) -> list[Any]:
        values: dict[int | None, Any] = {None: None}
        for image, row in zip(found[key], rows, strict=True):
            value = None if image is None else row.get(name)
            if values.setdefault(image, value) != value and value == value:  # NaN does not differ
                other = values[image]
                raise ValueError(f"{where} has two values of {name} for {names[image]}: {other!r} and {value!r}")
        of_all = [values.get(image) for image in range(len(names))]
        return of_all if where.lower().endswith(".jsonl") else as_numbers(of_all)

    return {name: Column(where, partial(read, name)) for name in found if name and name != key}


def as_numbers(texts: Sequence[str | None]) -> list[Any]:
    """A column of texts. Integers, also as 3.0, if all are; empty and NaN are None."""
    stripped = [text and text.strip() for text in texts]
    values = [None if text is None or text.lower() in ("", "nan") else text for text in stripped]
    are_numbers = all(INTEGER.fullmatch(text) for text in values if text is not None)
    return [int(text.partition(".")[0]) if text and are_numbers else text for text in values]


def numbers_of(names: Sequence[str]) -> dict[str, int]:
    """The numbers of images by their paths, by names and by stems that only one image has."""
    found: dict[str, int] = {}
    for form in (lambda path: path.stem, lambda path: path.name, str):
        keys = [form(PurePosixPath(name)) for name in names]
        times = Counter(keys)
        found |= {key: number for number, key in enumerate(keys) if times[key] == 1}
    return found
