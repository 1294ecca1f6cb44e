"""Images in Parquet files as the Hugging Face hub stores them: a struct {bytes, path} column and a label column."""

import glob
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from ddpm.base import check
from ddpm.base.untrusted import json_data
from ddpm.data.images import UnusableImage
from ddpm.data.open_image import open_image
from ddpm.data.sources.base import sha256_of_parts

IMAGE_NAMES = ("image", "img", "png", "jpg")
LABEL_NAMES = ("label", "labels", "class")
MAX_OPEN_GROUPS = 4
ROWS_AT_ONCE = 16
MAX_COLUMN_BYTES = 2**31
"""Of one row group's images, or of all labels of a file."""


@dataclass(frozen=True)
class Parquet:
    """path: a file, a folder, a glob ("train-*.parquet"), or a list of these; rows are numbered in that order.

    image_column, label_column: None finds them by the files' Hugging Face features, else by name and type.
    encoded_limit_mb: files whose image column is at most this large (as encoded, PNG or JPEG) are held in memory, which
    forked workers share. From larger ones a whole row group is read to get one image: write them with small groups
    (`row_group_size=64`) if they are to be streamed in random order.
    """

    path: str | Sequence[str]
    image_column: str | None = None
    label_column: str | None = None
    encoded_limit_mb: int = 2048

    def __post_init__(self) -> None:
        check.non_negative_int("data.source.encoded_limit_mb", self.encoded_limit_mb)

    def open(self) -> "ParquetImages":
        paths = parquet_files(self.path)
        files = [parquet_file(path) for path in paths]
        schema = files[0].schema_arrow
        for path, file in zip(paths, files, strict=True):
            if file.schema_arrow.names != schema.names:
                raise ValueError(f"{path} has the columns {file.schema_arrow.names}, but {paths[0]} has {schema.names}")
        features = hugging_face_features(schema)
        image_column = find_column(schema, "image", self.image_column, features, "Image", IMAGE_NAMES, is_image_type)
        label_column = find_column(
            schema, "label", self.label_column, features, "ClassLabel", LABEL_NAMES, is_label_type
        )
        if image_column is None:
            raise ValueError(
                f"{paths[0]} has no column of images (a struct with bytes, or bytes) among {schema.names}; "
                "name it with data.source.image_column"
            )
        groups = [
            (path, g, f.metadata.row_group(g))
            for path, f in zip(paths, files, strict=True)
            for g in range(f.num_row_groups)
        ]
        for path, number, group in groups:
            size = column_bytes(group, image_column)
            if size > MAX_COLUMN_BYTES:
                raise ValueError(
                    f"data.source.path: row group {number} of {path} has {size:,} bytes of images, and at most "
                    f"{MAX_COLUMN_BYTES:,} are read at once; write it with smaller groups, row_group_size=64"
                )
        labels, class_names = read_labels(paths, label_column, features)
        images = ParquetImages(
            image_column,
            [(path, number) for path, number, _ in groups],
            np.cumsum([0, *(group.num_rows for _, _, group in groups)]).tolist(),
            labels,
            class_names,
        )
        if len(images) == 0:
            raise ValueError(f"{paths[0]} has no rows")
        encoded = sum(column_bytes(group, image_column) for _, _, group in groups)
        if encoded <= self.encoded_limit_mb * 2**20:
            images.hold_all()
        return images


def parquet_file(path: str) -> pq.ParquetFile:
    """Opened, its footer read and held against the file's length."""
    try:
        if not os.path.isfile(path):
            raise OSError("it is not a regular file")
        file = pq.ParquetFile(path)
        file.schema_arrow  # noqa: B018
    except Exception as error:  # whatever a damaged or hostile footer provokes
        raise ValueError(f"data.source.path: {path} cannot be read as Parquet: {error}") from error
    if file.metadata.num_rows > os.path.getsize(path):
        raise ValueError(
            f"data.source.path: {path} has {os.path.getsize(path):,} bytes and says that they hold "
            f"{file.metadata.num_rows:,} images"
        )
    return file


def read_column(path: str, column: str, groups: Sequence[int] | None = None) -> list[pa.Array]:
    """The column in pieces of a few rows, so that one which inflates without end is refused long before the end."""
    pieces, size = [], 0
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE, groups, [column], use_threads=False):
                size += batch.nbytes
                if size > MAX_COLUMN_BYTES:
                    raise ValueError(f"its column {column!r} inflates to more than {MAX_COLUMN_BYTES:,} bytes")
                pieces.append(batch.column(0))
    except Exception as error:  # whatever damaged or hostile pages provoke
        raise ValueError(f"data.source.path: {path} cannot be read as Parquet: {error}") from error
    return pieces


def parquet_files(path: str | Sequence[str]) -> list[str]:
    patterns = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    found: list[str] = []
    for pattern in map(str, patterns):
        matches = sorted(glob.glob(os.path.join(pattern, "*.parquet") if os.path.isdir(pattern) else pattern))
        if not matches:
            check.fail("data.source.path", pattern, "a Parquet file, a folder of them or a pattern that matches some")
        found += matches
    return found


def hugging_face_features(schema: pa.Schema) -> dict[str, Any]:
    """Column -> feature, {} where the files did not come from that library."""
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
    return pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def find_column(
    schema: pa.Schema,
    what: str,
    wanted: str | None,
    features: dict[str, Any],
    feature: str,
    names: Sequence[str],
    is_right_type: Callable[[pa.DataType], bool],
) -> str | None:
    """The column the user named, or the only one that the features, else name and type, point to; None if none."""
    right = [field.name for field in schema if is_right_type(field.type)]
    if wanted is not None:
        return check.one_of(f"data.source.{what}_column", wanted, right)
    typed = [n for n in right if isinstance(features.get(n), dict) and features[n].get("_type") == feature]
    found = typed or [n for n in right if n.lower() in names]
    if not found and what == "image":
        found = right
    if len(found) > 1:
        raise ValueError(f"{' and '.join(found)} could each be the {what}; say which with data.source.{what}_column")
    return found[0] if found else None


def read_labels(paths: list[str], column: str | None, features: dict[str, Any]) -> tuple[Tensor, tuple[str, ...]]:
    """int64 `[N]` (-1 where null) and class names; text labels are numbered in alphabetical order."""
    if column is None:
        num_rows = sum(pq.ParquetFile(path).metadata.num_rows for path in paths)
        return torch.full((num_rows,), -1), ()
    values = pa.chunked_array([piece for path in paths for piece in read_column(path, column)])
    feature = features.get(column)
    names = (feature.get("names") if isinstance(feature, dict) else None) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{paths[0]} must name the classes of {column!r} by a list of texts, got {names!r:.100}")
    names = tuple(names)
    if not pa.types.is_integer(values.type):
        names = tuple(sorted(name for name in values.unique().to_pylist() if name is not None))
        numbers = {name: i for i, name in enumerate(names)}
        values = pa.chunked_array([pa.array([numbers.get(v) for v in values.to_pylist()], pa.int64())])
    labels = values.cast(pa.int64()).fill_null(-1).to_numpy()
    return torch.from_numpy(np.array(labels, dtype=np.int64)), names


def column_bytes(group: Any, column: str) -> int:
    parts = (group.column(i) for i in range(group.num_columns))
    return sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] == column)


@dataclass
class ParquetImages:
    """groups: (file, number) of each row group; starts: the number of its first row, and at the end of all rows."""

    column: str
    groups: list[tuple[str, int]]
    starts: list[int]
    labels: Tensor
    class_names: tuple[str, ...]
    held: dict[int, pa.ChunkedArray] = field(default_factory=dict, repr=False)  # for good, shared by forked workers
    recent: OrderedDict[int, pa.ChunkedArray] = field(default_factory=OrderedDict, repr=False)

    def __len__(self) -> int:
        return self.starts[-1]

    def hold_all(self) -> None:
        self.held = {number: self._read(number) for number in range(len(self.groups))}

    def image(self, index: int) -> Image.Image:
        number = bisect_right(self.starts, index) - 1
        value = self._group(number)[index - self.starts[number]].as_py()
        if isinstance(value, dict):  # the struct may name a file beside the Parquet file instead of holding it
            path, value = value.get("path"), value["bytes"]
            if value is None and path is not None:
                if Path(path).is_absolute() or ".." in Path(path).parts:
                    raise UnusableImage(f"names a file that does not lie beside the Parquet file: {path!r}")
                return open_image(Path(self.groups[number][0]).parent / path)
        if value is None:
            raise UnusableImage("holds no bytes")
        return open_image(value)

    def name(self, index: int) -> str:
        number = bisect_right(self.starts, index) - 1
        path = self.groups[number][0]
        first = next(i for i, group in enumerate(self.groups) if group[0] == path)
        return f"{path} row {index - self.starts[first]}"

    def fingerprint(self) -> str:
        files = sorted({path for path, _ in self.groups})
        return sha256_of_parts(f"{os.path.basename(path)} {os.path.getsize(path)} {len(self)}" for path in files)

    def _group(self, number: int) -> pa.ChunkedArray:
        if number in self.held:
            return self.held[number]
        if number not in self.recent:
            self.recent[number] = self._read(number)
            if len(self.recent) > MAX_OPEN_GROUPS:
                self.recent.popitem(last=False)
        self.recent.move_to_end(number)
        return self.recent[number]

    def _read(self, number: int) -> pa.ChunkedArray:
        path, group = self.groups[number]
        return pa.chunked_array(read_column(path, self.column, [group]))
