"""WebDataset: tar files in which the members of a sample have the same name, as 0001.jpg, 0001.txt and 0001.cls."""

import os
import posixpath
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from torch import Tensor

from ddpm.base import check
from ddpm.base.memory import require_memory
from ddpm.base.untrusted import json_data
from ddpm.data.contents import describe_counts
from ddpm.data.open_image import open_image
from ddpm.data.sources.base import Column, is_image_name, matching_files, refuse_repeated, require_utf8, sha256_of_parts
from ddpm.data.sources.class_numbers import number_classes
from ddpm.data.sources.layout import (
    CAPTION_FIELDS,
    caption_in,
    columns_of_names,
    first_text,
    folders_below,
    num_with_several,
    texts_in,
    zipped_folder,
)
from ddpm.data.sources.tables import as_numbers

TEXT, LABEL, TABLE = "txt", "cls", "json"
"""Extensions of a caption, a number or name of a class, and a JSON object with either."""
LABEL_FIELDS = ("label", "class", "cls")


@dataclass(frozen=True)
class WebDataset:
    """path: an uncompressed .tar, a folder, a glob ("train-*.tar"), or a list of these; samples are numbered in that
    order. A sample is an image, and its caption and class if it has some. They are read where they lie."""

    path: str | Sequence[str]

    def open(self) -> "WebDatasetImages":
        members, texts, labels, without = [], [], [], []
        others: Counter[str] = Counter()
        for path in matching_files(self.path, "*.tar", "a .tar file"):
            samples = samples_of(path)
            with open(path, "rb") as file:
                for name, parts in samples.items():
                    found = [extension for extension in parts if is_image_name(f"x.{extension}")]
                    if not found:
                        others.update(f".{extension}" if extension else "without extension" for extension in parts)
                        without.append(name)
                        continue
                    if len(found) > 1:
                        listed = f"{', '.join(found)} after the first dot of the name"
                        raise ValueError(f"{path}: the sample {name!r} must have one image, and has {listed}")
                    members.append((path, name, *parts[found[0]]))
                    about = table_of(file, name, parts)
                    texts.append(texts_of(file, name, parts, about))
                    labels.append(label_of(file, name, parts, about))
        if not members:
            only = f", not {describe_counts(others)}" if others else ""
            check.fail("data.source.path", self.path, f"tar files with images{only}")
        what = f"a label in a .{LABEL} or .{TABLE} file"
        numbered = number_classes(numbers_in(labels), what, lambda number: members[number][1])
        captions = [*map(first_text, texts)] if any(texts) else None
        return WebDatasetImages(members, *numbered, captions, others, num_with_several(texts), without=without)


Parts = dict[str, tuple[int, int]]
"""Offset and size of the members of a sample, by extension."""


def samples_of(path: str) -> dict[str, Parts]:
    """The samples of a file by name: the path up to the first dot of its last part. A folder is a sample without parts,
    whose name ends with a slash."""
    found: dict[str, Parts] = {}
    names = []
    try:
        if not os.path.isfile(path):
            raise OSError("it is not a regular file")
        with tarfile.open(path, "r:") as archive:
            members = {posixpath.normpath(member.name): member for member in archive}
            for member in archive:
                folder, _, last = member.name.rpartition("/")
                if member.isdir() and member.name != ".":
                    found[f"{folder}/{last}/".lstrip("/")] = {}
                stem, _, extension = last.partition(".")
                if (member.isfile() or member.islnk() or member.issym()) and stem:
                    file = linked_file(member, members)
                    parts = found.setdefault(f"{folder}/{stem}".lstrip("/"), {})
                    names.append(f"{folder}/{stem}.{extension.lower()}".lstrip("/"))
                    parts[extension.lower()] = (file.offset_data, file.size)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise ValueError(f"data.source.path: {path} cannot be read as an uncompressed tar file: {error}") from error
    refuse_repeated(names, path)
    require_utf8(names, path)
    return found


def linked_file(member: tarfile.TarInfo, members: dict[str, tarfile.TarInfo]) -> tarfile.TarInfo:
    """The member itself, or the file among `members`, by path, to which it is a link. Raises ValueError for another."""
    found: list[tarfile.TarInfo | None] = [member]
    while (last := found[-1]) is not None and not last.isfile() and last not in found[:-1]:
        above = posixpath.dirname(last.name) if last.issym() else ""
        found.append(members.get(posixpath.normpath(posixpath.join(above, last.linkname))))
    if last is None or not last.isfile():
        raise ValueError(f"{member.name} is a link to {member.linkname}, no file in it; pack files instead (tar -h)")
    return last


def read_part(file: BinaryIO, offset: int, size: int, what: str) -> bytes:
    require_memory(size, what)
    file.seek(offset)
    return file.read(size)


def text_of(file: BinaryIO, name: str, extension: str, parts: Parts) -> str:
    where = f"{file.name}: {name}.{extension}"
    try:
        return read_part(file, *parts[extension], where).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8: {error}") from error


def table_of(file: BinaryIO, name: str, parts: Parts) -> dict[str, Any]:
    """The JSON object of a sample; empty without one."""
    if TABLE not in parts:
        return {}
    about = json_data(text_of(file, name, TABLE, parts), f"{file.name}: {name}.{TABLE}")
    return about if isinstance(about, dict) else {}


def texts_of(file: BinaryIO, name: str, parts: Parts, about: dict[str, Any]) -> list[str]:
    if TEXT in parts:
        return texts_in(caption_in(text_of(file, name, TEXT, parts)))
    found = ([text.strip() for text in texts_in(about.get(each))] for each in CAPTION_FIELDS)
    return next(filter(any, found), [])


def label_of(file: BinaryIO, name: str, parts: Parts, about: dict[str, Any]) -> Any:
    if LABEL in parts:
        return text_of(file, name, LABEL, parts)
    return next((about[each] for each in LABEL_FIELDS if about.get(each) is not None), None)


def numbers_in(labels: list[Any]) -> list[Any]:
    """Texts and numbers as of `as_numbers`; other values, which are no labels, as they are."""
    read = as_numbers([str(each) if isinstance(each, str | int) else None for each in labels])
    return [each if isinstance(label, str | int | None) else label for each, label in zip(read, labels, strict=True)]


@dataclass
class WebDatasetImages:
    """members: file, name, offset and size of each image. passed_over: the number of members of samples without an
    image, by extension. num_with_several: see `ImageFiles`. without: samples without an image, folders."""

    members: list[tuple[str, str, int, int]]
    labels: Tensor
    class_names: tuple[str, ...]
    label_problem: str
    captions: list[str] | None
    passed_over: Counter[str] = field(default_factory=Counter, repr=False)
    num_with_several: int = 0
    opened: dict[str, BinaryIO] = field(default_factory=dict, repr=False)
    process: int = 0  # that opened them
    without: list[str] = field(default_factory=list, repr=False)

    def __len__(self) -> int:
        return len(self.members)

    def image(self, index: int) -> Image.Image:
        path, _, offset, size = self.members[index]
        return open_image(read_part(self._file(path), offset, size, self.name(index)))

    def name(self, index: int) -> str:
        return f"{self.members[index][0]}: {self.members[index][1]}"

    def columns(self) -> dict[str, Column]:
        """What data.labels can choose."""
        names = [name.removeprefix("./") for _, name, _, _ in self.members]
        without = [name.removeprefix("./") for name in self.without]
        root = zipped_folder(names, without)
        below = [name.removeprefix(root) for name in names]
        return columns_of_names(below, folders_below(root, [*names, *without]), self.members[0][0])

    def fingerprint(self) -> str:
        return sha256_of_parts(f"{Path(path).name} {name} {offset} {size}" for path, name, offset, size in self.members)

    def _file(self, path: str) -> BinaryIO:
        """Each process opens its own, because forked processes share a file position."""
        if self.process != os.getpid():
            self.opened, self.process = {}, os.getpid()
        if path not in self.opened:
            self.opened[path] = open(path, "rb")  # noqa: SIM115
        return self.opened[path]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "opened": {}, "process": 0}
