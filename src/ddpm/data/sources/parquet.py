"""Images in Parquet files of the Hugging Face hub: a column of structs {bytes, path} and a label column."""

import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from torch import Tensor

from ddpm.base import check
from ddpm.base.memory import require_memory
from ddpm.base.untrusted import json_data
from ddpm.data.images import UnusableImage
from ddpm.data.open_image import open_image
from ddpm.data.sources.base import Column, matching_files, sha256_of_parts
from ddpm.data.sources.class_numbers import no_labels, number_classes
from ddpm.data.sources.layout import first_text, num_with_several

IMAGE_NAMES = ("image", "img", "png", "jpg")
LABEL_NAMES = ("label", "labels", "class")
CAPTION_NAMES = ("caption", "text", "prompt", "captions")


@dataclass(frozen=True)
class Parquet(check.Checked):
    """path: a file, a folder, a glob ("train-*.parquet"), or a list of these; rows are numbered in that order.

    image_column, label_column: if None, they are found by the Hugging Face features in the files, else by name and
    type. caption_column: a column of texts, or of lists of texts, of which the first is used; None: found by name
    (caption, text, prompt). encoded_limit_mb: image columns up to this encoded size (PNG or JPEG) are held in memory,
    which forked workers share. From larger ones, a row group is read for each image; write small groups
    (`row_group_size=64`) to stream them in random order.
    """

    path: str | Sequence[str]
    image_column: str | None = None
    label_column: str | None = None
    caption_column: str | None = None
    encoded_limit_mb: check.NonNegativeInt = 2048

    def open(self) -> "ParquetImages":
        paths = matching_files(self.path, "*.parquet", "a Parquet file")
        files = [parquet_file(path) for path in paths]
        schema = files[0].schema_arrow
        for path, file in zip(paths, files, strict=True):
            if file.schema_arrow.names != schema.names:
                raise ValueError(f"{path} has the columns {file.schema_arrow.names}, but {paths[0]} has {schema.names}")
        features = hugging_face_features(schema)
        image_column = find_column(schema, "image", self.image_column, features, "Image", IMAGE_NAMES, is_image_type)
        label_column, problem = self.find_labels(schema, features)
        caption_column, caption_problem = self.find_captions(schema, label_column)
        if image_column is None:
            raise ValueError(
                f"{paths[0]} has no image column (struct with bytes, or bytes) among "
                f"{', '.join(f'{each.name} ({each.type})' for each in schema)}; "
                "name it with data.source.image_column"
            )
        metadata = [(path, file.metadata) for path, file in zip(paths, files, strict=True)]
        groups = [(path, n, of_file.row_group(n)) for path, of_file in metadata for n in range(of_file.num_row_groups)]
        places = [(path, number) for path, number, _ in groups]
        starts = np.cumsum([0, *(group.num_rows for _, _, group in groups)]).tolist()
        if starts[-1] == 0:
            raise ValueError(f"{paths[0]} has no rows")
        require_memory(8 * starts[-1], f"data.source.path: a label for each of the {starts[-1]:,} rows")
        labels = no_labels(starts[-1], problem)
        if label_column is not None:
            values, names = read_values(places, label_column), class_names(features, label_column, paths[0])
            labels = number_classes(values, f"{paths[0]}: a {label_column}", lambda row: f"row {row}", names)
        texts = None if caption_column is None else read_values(places, caption_column)
        captions = texts and [*map(first_text, texts)]
        encoded = sum(column_bytes(group, image_column) for _, _, group in groups)
        is_held = encoded <= self.encoded_limit_mb * 2**20
        held = [read_column(path, image_column, number) for path, number in places] if is_held else None
        several = num_with_several(texts or [])
        return ParquetImages(image_column, places, starts, *labels, held, captions, caption_problem, several)

    def find_labels(self, schema: pa.Schema, features: dict[str, Any]) -> tuple[str | None, str]:
        """The column of labels, or None and why a column cannot be one or which it could be."""
        try:
            found = find_column(schema, "label", self.label_column, features, "ClassLabel", LABEL_NAMES, is_label_type)
        except SeveralColumns as error:
            return None, str(error)
        return found, "" if found else of_other_types(schema, LABEL_NAMES, "classes")

    def find_captions(self, schema: pa.Schema, labels: str | None) -> tuple[str | None, str]:
        """The column of captions, or None and why a column cannot be one or which it could be. labels: their column."""
        names = [name for name in CAPTION_NAMES if name != labels]
        try:
            found = find_column(schema, "caption", self.caption_column, {}, "", names, is_caption_type)
        except SeveralColumns as error:
            return None, str(error)
        return found, "" if found else of_other_types(schema, names, "texts")


def of_other_types(schema: pa.Schema, names: Sequence[str], what: str) -> str:
    """The columns with these names, which are not of `what`; "" if there are none."""
    found = [field for field in schema if field.name.lower() in names]
    return "; ".join(f"{field.name} is a column of {field.type}, not of {what}" for field in found)


def parquet_file(path: str) -> pq.ParquetFile:
    """Open a file and read its footer. Raises ValueError."""
    try:
        if not os.path.isfile(path):
            raise OSError("it is not a regular file")
        file = pq.ParquetFile(path, memory_map=True)
        file.schema_arrow  # noqa: B018
        return file
    except Exception as error:  # any error of a damaged or hostile footer
        raise ValueError(f"data.source.path: {path} cannot be read as Parquet: {error}") from error


def read_column(path: str, column: str, number: int) -> pa.ChunkedArray:
    """Read a column of a row group. Raises ValueError."""
    file = parquet_file(path)
    require_memory(column_bytes(file.metadata.row_group(number), column), f"row group {number} of {path}")
    try:
        return file.read_row_group(number, [column], use_threads=False).column(0)
    except Exception as error:  # any error of damaged or hostile pages
        raise ValueError(f"data.source.path: {path} cannot be read as Parquet: {error}") from error


read_recent = lru_cache(maxsize=4)(read_column)


def hugging_face_features(schema: pa.Schema) -> dict[str, Any]:
    """Column -> feature; {} if the files were not written by Hugging Face datasets."""
    try:
        stored = json_data((schema.metadata or {}).get(b"huggingface", b"{}").decode(), "the files' metadata")
        features = stored.get("info", {}).get("features", {})
        return features if isinstance(features, dict) else {}
    except (ValueError, AttributeError):
        return {}


def is_image_type(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def is_label_type(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or is_text_type(kind)


def is_text_type(kind: pa.DataType) -> bool:
    """Also of the categories of pandas, a dictionary of texts."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_caption_type(kind: pa.DataType) -> bool:
    """Also a list of texts, of which the first is used."""
    return is_text_type(kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind)


class SeveralColumns(ValueError):
    """Two columns that could be meant."""


def find_column(
    schema: pa.Schema,
    what: str,
    wanted: str | None,
    features: dict[str, Any],
    feature: str,
    names: Sequence[str],
    is_right_type: Callable[[pa.DataType], bool],
) -> str | None:
    """The column `wanted`, or the only one that matches by features, else by name and type; None if none matches."""
    right = [field.name for field in schema if is_right_type(field.type)]
    if wanted is not None:
        return check.one_of(f"data.source.{what}_column", wanted, right)
    typed = [n for n in right if isinstance(features.get(n), dict) and features[n].get("_type") == feature]
    found = typed or [n for n in right if n.lower() in names]
    if not found and what == "image":
        found = right
    if len(found) > 1:
        remedy = "data.labels" if what == "label" else f"data.source.{what}_column"
        raise SeveralColumns(f"{' and '.join(found)} could each be the {what}; choose one with {remedy}={found[0]}")
    return found[0] if found else None


def class_names(features: dict[str, Any], column: str, path: str) -> tuple[str, ...]:
    """Of a column, by its Hugging Face feature."""
    feature = features.get(column)
    names = (feature.get("names") if isinstance(feature, dict) else None) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} must name the classes of {column!r} in a list of strings, got {names!r:.100}")
    return tuple(names)


def read_values(places: list[tuple[str, int]], column: str) -> list[Any]:
    """A value for each row; None where null."""
    pieces = [piece for path, number in places for piece in read_column(path, column, number).chunks]
    return [value for piece in pieces for value in piece.to_pylist()]


def column_bytes(group: Any, column: str) -> int:
    parts = (group.column(i) for i in range(group.num_columns))
    return sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] == column)


@dataclass
class ParquetImages:
    """groups: (file, number) of each row group. starts: number of the first row of each group, and the number of all
    rows.

    held: image columns in memory, which forked workers share, or None.
    """

    column: str
    groups: list[tuple[str, int]]
    starts: list[int]
    labels: Tensor
    class_names: tuple[str, ...]
    label_problem: str
    held: list[pa.ChunkedArray] | None = field(repr=False)
    captions: list[str] | None = field(default=None, repr=False)
    caption_problem: str = ""
    num_with_several: int = 0

    def __len__(self) -> int:
        return self.starts[-1]

    def image(self, index: int) -> Image.Image:
        number = bisect_right(self.starts, index) - 1
        path, group = self.groups[number]
        column = read_recent(path, self.column, group) if self.held is None else self.held[number]
        value = column[index - self.starts[number]].as_py()
        if isinstance(value, dict):  # the struct can name a file beside the Parquet file instead
            beside, value = value.get("path"), value["bytes"]
            if value is None and beside is not None:
                if Path(beside).is_absolute() or ".." in Path(beside).parts:
                    raise UnusableImage(f"names a file that is not beside the Parquet file: {beside!r}")
                return open_image(Path(path).parent / beside)
        if value is None:
            raise UnusableImage("has no bytes")
        return open_image(value)

    def name(self, index: int) -> str:
        number = bisect_right(self.starts, index) - 1
        path = self.groups[number][0]
        first = next(i for i, group in enumerate(self.groups) if group[0] == path)
        return f"{path} row {index - self.starts[first]}"

    def columns(self) -> dict[str, Column]:
        """What data.labels can choose."""
        path = self.groups[0][0]
        schema = parquet_file(path).schema_arrow
        features = hugging_face_features(schema)
        names = [each.name for each in schema if not (pa.types.is_nested(each.type) or pa.types.is_binary(each.type))]
        values = {name: partial(read_values, self.groups, name) for name in names}
        return {name: Column(path, values[name], class_names(features, name, path)) for name in names}

    def fingerprint(self) -> str:
        files = sorted({path for path, _ in self.groups})
        return sha256_of_parts(f"{os.path.basename(path)} {os.path.getsize(path)} {len(self)}" for path in files)
