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
from ddpm.data.sources.base import Column, composed, is_image_name

SUFFIXES = (".csv", ".tsv", ".jsonl")
FILE_NAME = "file_name"
"""The column of names in the layout of Hugging Face's ImageFolder. In other tables, it is found by its values."""
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})(\.0+)?")


def is_table(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def read_rows(text: str, where: str) -> list[dict[str, Any]]:
    """The rows of a table by the names of its columns. where: its path."""
    text = text.removeprefix("\ufeff")
    if not where.lower().endswith(".jsonl"):
        header = (text.splitlines() or [""])[0]
        delimiter = max(",;\t|", key=header.count)
        try:
            table = csv.DictReader(io.StringIO(text, newline=None), delimiter=delimiter, skipinitialspace=True)
            found = list(table)
        except csv.Error as error:
            raise ValueError(f"{where} cannot be read as a table: {error}") from error
        if repeated := [name for name, times in Counter(table.fieldnames or ()).items() if times > 1 and name]:
            raise ValueError(f"{where} has two columns with the name {repeated[0]!r}; rename one of them")
        return found
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    rows = [(number, json_data(line, f"{where}, line {number}")) for number, line in lines]
    for number, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f'{where}, line {number} must be an object, as {{"file_name": "1.png", "label": "cat"}}')
    return [row for _, row in rows]


def columns(
    text: str, names: Sequence[str], where: str, folder: str, root: str, by_path_alone: bool = False
) -> dict[str, Column]:
    """The columns of a table, but for the one that names the images `names`. ValueError if none names an image.

    root, folder: of the images, and of the table below it. An image may be named by its path from there or with the
    root, or, if only one has it, by the last part of its path with or without the extension. Names may be composed of
    other Unicode characters than those of the files, as a Mac writes them. by_path_alone: another split may have the
    last part.
    """
    rows, number = read_rows(text, where), numbers_of(names, (str,) if by_path_alone else NAMES)

    def find(value: Any) -> int | None:
        name = composed(str(value)).replace("\\", "/").removeprefix("./").removeprefix(composed(f"{root}/"))
        return number.get((PurePosixPath(composed(folder)) / name).as_posix(), number.get(name))

    found = {
        name: [find(row.get(name)) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)
    }

    def num_named(name: str) -> int:
        """How many images a column names. Numbers that name few images often, as 0 and 1, are no names but classes."""
        named = [image for image in found[name] if image is not None]
        are_numbers = all(INTEGER.fullmatch(str(row.get(name)).strip()) for row in rows)
        return 0 if are_numbers and 2 * len({*named}) <= len(named) else len({*named})

    if any(is_image_name(str(name)) and find(name) is not None for name in found):
        raise ValueError(f"{where} must begin with the names of its columns, as file_name,label")
    key = FILE_NAME if FILE_NAME in found else max(found, key=num_named, default="")
    if key not in found or not num_named(key):
        raise ValueError(f"{where} names no image, such as {names[0]}")

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


NAMES: tuple[Callable[[PurePosixPath], str], ...] = (lambda path: path.stem, lambda path: path.name, str)


def numbers_of(names: Sequence[str], forms: Sequence[Callable[[PurePosixPath], str]]) -> dict[str, int]:
    """The numbers of images by the forms of their names that only one image has; later forms come first."""
    found: dict[str, int] = {}
    for form in forms:
        keys = [form(PurePosixPath(composed(name))) for name in names]
        times = Counter(keys)
        found |= {key: number for number, key in enumerate(keys) if times[key] == 1}
    return found
