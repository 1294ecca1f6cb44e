"""Tables beside images, .csv, .tsv or .jsonl: a row for each image, and a column that names it."""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from ddpm.base.untrusted import json_data
from ddpm.data.sources.base import Column

SUFFIXES = (".csv", ".tsv", ".jsonl")
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})(\.0+)?")
FILE_NAME = "file_name"
"""The column of names in the layout of Hugging Face's ImageFolder. In other tables, it is found by its values."""


def is_table(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in SUFFIXES


def json_rows(text: str, where: str) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a .jsonl file with their line numbers."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    rows = [(number, json_data(line, f"{where}, line {number}")) for number, line in lines]
    for number, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f'{where}, line {number} must be an object, as {{"file_name": "1.png", "label": "cat"}}')
    return rows


def read_rows(text: str, where: str) -> list[dict[str, Any]]:
    """The rows of a table by column. where: its path."""
    if where.lower().endswith(".jsonl"):
        return [row for _, row in json_rows(text, where)]
    text = text.removeprefix("\ufeff")
    header = text.partition("\n")[0]
    try:
        return list(csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=header.count)))
    except csv.Error as error:
        raise ValueError(f"{where} cannot be read as a table: {error}") from error


def columns(text: str, names: Sequence[str], where: str, folder: str) -> dict[str, Column]:
    """The columns of a table, but for the one that names the images. Empty if it names none of the images `names`.

    folder: of the table. An image may be named by its path from there or from the root, or, if only one has it, by the
    last part of its path with or without the extension.
    """
    rows, find = read_rows(text, where), finder(places_of(names), folder)
    key = key_column(rows, find)
    places = [find(row.get(key)) for row in rows]
    found = dict.fromkeys(name for row in rows for name in row if name and name != key)
    if all(place is None for place in places):
        return {}

    def read(name: str) -> list[Any]:
        values: dict[int, Any] = {}
        for place, row in zip(places, rows, strict=True):
            value = row.get(name)
            if place is not None and values.setdefault(place, value) != value and value == value:
                raise ValueError(
                    f"{where} has two values of {name} for {names[place]}: {values[place]!r} and {value!r}"
                )
        of_all = [values.get(place) for place in range(len(names))]
        return of_all if where.lower().endswith(".jsonl") else as_numbers(of_all)

    return {name: Column(where, partial(read, name)) for name in found}


def as_numbers(texts: Sequence[str | None]) -> list[Any]:
    """A column of texts. Integers, also as 3.0, if all are; empty and NaN are None."""
    stripped = [text and text.strip() for text in texts]
    values = [None if text is None or text.lower() in ("", "nan") else text for text in stripped]
    are_numbers = all(INTEGER.fullmatch(text) for text in values if text is not None)
    return [int(text.partition(".")[0]) if text and are_numbers else text for text in values]


def places_of(names: Sequence[str]) -> dict[str, int]:
    """The places of images by their paths, by names and by stems that only one image has."""
    found: dict[str, int] = {}
    for form in (lambda path: path.stem, lambda path: path.name, str):
        keys = [form(PurePosixPath(name)) for name in names]
        number = Counter(keys)
        found |= {key: place for place, key in enumerate(keys) if number[key] == 1}
    return found


def finder(places: dict[str, int], folder: str) -> Callable[[Any], int | None]:
    def find(value: Any) -> int | None:
        name = "" if value is None else str(value).replace("\\", "/").removeprefix("./")
        return places.get((PurePosixPath(folder) / name).as_posix(), places.get(name))

    return find


def key_column(rows: Sequence[dict[str, Any]], find: Callable[[Any], int | None]) -> str:
    """The column that names the images: `file_name`, else the one whose values name most."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if FILE_NAME in columns:
        return FILE_NAME
    return max(columns, key=lambda name: sum(find(row.get(name)) is not None for row in rows), default="")
