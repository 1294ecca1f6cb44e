"""Image files in a folder or a zip file: what their places and names, and the tables beside them, say about them."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Any, NoReturn, Self

import torch
from torch import Tensor

from ddpm.base.untrusted import json_data
from ddpm.data.open_image import is_hidden
from ddpm.data.sources import tables
from ddpm.data.sources.base import EXTENSIONS, HELD_OUT, SAME, Column, composed
from ddpm.data.sources.class_numbers import Labels, no_labels, number_classes

LAYOUTS = ("auto", "classes", "flat", "edm")
NO_SPLITS = ("ground_truth",)
"""Folders of MVTec AD that are neither a split nor a class."""
EDM_TABLE, CAPTION_TABLE = "dataset.json", "metadata.jsonl"
CAPTION_TABLES = (CAPTION_TABLE, "metadata.csv")
ABOVE = ".."
"""The folder in which the root is a split."""
CAPTION_FIELDS, CAPTION_SUFFIXES = ("text", "caption", "prompt"), (".txt", ".caption")


def splits_in(folders: Iterable[str], files: Iterable[str]) -> dict[str, str]:
    """The folders of the splits among what lies directly in a root, by name: train and others, also as Training or
    Test. Empty if there is anything else."""
    folders, files = sorted(folders), set(files)
    named = {SAME.get(folder.lower(), folder.lower()): folder for folder in folders}
    is_split = "train" in named and 1 < len(named) == len(folders) and named.keys() <= {"train", *HELD_OUT, *NO_SPLITS}
    has_images = any(PurePosixPath(name).suffix.lower() in EXTENSIONS for name in files) or EDM_TABLE in files
    return named if is_split and not has_images else {}


@dataclass
class ImageFiles(ABC):
    """root: of the names, in messages. names: of the images, sorted, with forward slashes. others: of the other files.
    label_problem: see `Labels`. captions: a text for each image, or None. caption_problem: why tables or texts beside
    images give none. num_with_several: of the images, those with more than one caption. folders: the first ones below
    the root."""

    root: str
    names: list[str]
    others: list[str] = field(repr=False)
    labels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64), repr=False)
    class_names: tuple[str, ...] = ()
    label_problem: str = ""
    captions: list[str] | None = field(default=None, repr=False)
    caption_problem: str = ""
    num_with_several: int = 0
    folders: frozenset[str] = field(default=frozenset(), repr=False)

    @abstractmethod
    def text(self, name: str) -> str:
        """The text of another file."""

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return f"{self.root}/{self.names[index]}"

    @property
    def folder(self) -> str:
        """The last part of the root."""
        return PurePosixPath(self.root).name

    @property
    def passed_over(self) -> Counter[str]:
        """The number of other files by extension."""
        others = {*self.others} - {*self.texts_beside().values()}
        paths = [path for path in map(PurePosixPath, others) if path.name not in (EDM_TABLE, *CAPTION_TABLES)]
        return Counter(path.suffix.lower() or "without extension" for path in paths)

    def arranged(self, layout: str | None, folders: Iterable[str]) -> Self:
        """With the labels of a layout and the captions of tables. folders: see the field."""
        labels = self.layout_labels(layout, folders)
        try:
            texts, problem = self.captions_of_tables() or self.captions_beside(), ""
        except ValueError as error:
            texts, problem = None, str(error)
        return replace(
            self,
            folders=frozenset(folders),
            labels=labels.numbers,
            class_names=labels.names,
            label_problem=labels.problem,
            captions=texts and [*map(first_text, texts)],
            caption_problem=problem,
            num_with_several=num_with_several(texts or []),
        )

    def layout_labels(self, layout: str | None, folders: Iterable[str]) -> Labels:
        direct = [name for name in self.names if "/" not in name]
        if layout in ("auto", None) and EDM_TABLE in self.others:
            layout = "edm"
        if layout == "auto" and 0 < len(direct) < len(self.names):
            raise ValueError(
                f"{self.root} has images both directly ({direct[0]}) and in subfolders; "
                "choose one with data.source.layout=flat or data.source.layout=classes"
            )
        if layout == "edm":
            return self.edm_labels()
        if layout in ("flat", None) or (layout == "auto" and direct):
            return no_labels(len(self))
        if direct:
            raise ValueError(
                f"{self.root}: {direct[0]} is not in a class folder; move it, or set data.source.layout=flat"
            )
        return number_classes(class_folders(self.names, folders, self.root), "the folder", self.name)

    def edm_labels(self) -> Labels:
        """From `dataset.json` of EDM's dataset_tool.py: {"labels": [[name, class], ...]} or {"labels": null}."""
        where = f"{self.root}/{EDM_TABLE}"
        if EDM_TABLE not in self.others:
            raise ValueError(f"data.source.layout=edm needs {where}; use layout=classes or layout=flat")
        table = json_data(self.text(EDM_TABLE), where)
        try:
            entries = table.get("labels")
            rows = None if entries is None else [(composed(name.replace("\\", "/")), label) for name, label in entries]
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(f'{where} must be a JSON object {{"labels": [[name, class], ...]}}: {error}') from error
        if rows is None:
            return no_labels(len(self))
        classes: dict[str, Any] = {}
        for name, label in rows:
            if classes.setdefault(name, label) != label:
                raise ValueError(f"{where} has two labels for {name}: {classes[name]!r} and {label!r}")
        missing = [name for name in self.names if composed(name) not in classes]
        if len(missing) == len(self):
            return no_labels(len(self), f"{where} has no label for any image, the first is {missing[0]}")
        return number_classes([classes.get(composed(name)) for name in self.names], f"{where}: a label", self.name)

    def columns(self) -> dict[str, Column]:
        """What data.labels can choose: the first folder, the file name up to the first underscore, and the columns of
        tables in the root or beside the images."""
        found = columns_of_names(self.names, self.folders, self.root)
        beside = {"", ABOVE, *(parent(name) for name in self.names)}
        for path in self.others:
            if tables.is_table(path) and parent(path) in beside:
                columns = self.table_columns(path)
                found |= {name if name not in found else f"{path}:{name}": each for name, each in columns.items()}
        return found

    def table_columns(self, path: str) -> dict[str, Column]:
        """The columns of a table, or one in its name that raises the error of a table that cannot be read."""
        where, folder = f"{self.root}/{path}", parent(path)
        try:
            if folder == ABOVE:
                names = [f"{self.folder}/{name}" for name in self.names]
                return tables.columns(self.text(path), names, where, "", f"{self.root}/{ABOVE}", by_path_alone=True)
            return tables.columns(self.text(path), self.names, where, folder, self.root)
        except ValueError as error:
            return {path: Column(str(error), partial(fail_with, error))}

    def captions_of_tables(self) -> list[list[str]] | None:
        """The texts of `metadata.jsonl` or `metadata.csv`, in the root, beside the images or above (the layout of
        Hugging Face's ImageFolder): {"file_name": ..., "text": ...} in each row. None if there is no text. Raises
        ValueError unless each image has one."""
        beside = {"", ABOVE, *(parent(name) for name in self.names)}
        paths = sorted(p for p in self.others if p.rpartition("/")[2] in CAPTION_TABLES and parent(p) in beside)
        rows = [
            (path, f"{self.root}/{path}, line {number}", row)
            for path in paths
            for number, row in enumerate(tables.read_rows(self.text(path), f"{self.root}/{path}"), 1)
        ]
        if not any(each in row for _, _, row in rows for each in CAPTION_FIELDS):
            return None
        found: dict[str, list[str]] = {}
        for path, where, row in rows:
            values = [row[each] for each in CAPTION_FIELDS if is_caption(row.get(each))]
            if not values or not isinstance(row.get(tables.FILE_NAME), str):
                raise ValueError(f'{where} must be {{"file_name": ..., "text": ...}} with texts')
            name = PurePosixPath(composed(row[tables.FILE_NAME].replace("\\", "/")))
            if name.is_absolute() or ".." in name.parts:
                raise ValueError(f"{where}: file_name must lie below the table, got {str(name)!r:.200}")
            if parent(path) != ABOVE:
                name = PurePosixPath(composed(parent(path))) / name
            elif name.is_relative_to(composed(self.folder)):
                name = name.relative_to(composed(self.folder))
            else:  # of another split
                continue
            found.setdefault(name.as_posix(), []).extend(texts_in(values[0]))
        names = " and ".join(dict.fromkeys(path.rpartition("/")[2] for path in paths))
        missing = [name for name in self.names if composed(name) not in found]
        if missing:
            raise ValueError(f"{names} has no text for {len(missing)} of {len(self)} images, the first is {missing[0]}")
        if len(found) > len(self):
            other = min(found.keys() - {*map(composed, self.names)})
            raise ValueError(f"{names} names a file that is no image below {self.root}: {other}")
        return [found[composed(name)] for name in self.names]

    def texts_beside(self) -> dict[str, str]:
        """The text files that have the name of an image but for the extension, by that name."""
        texts = {stem(path): path for path in self.others if path.lower().endswith(CAPTION_SUFFIXES)}
        return {name: texts[stem(name)] for name in self.names if texts and stem(name) in texts}

    def captions_beside(self) -> list[str] | None:
        """The texts beside the images, 1.txt of 1.png, "" for none. None if there are none."""
        texts = self.texts_beside()
        return [caption_in(self.text(texts[name])) if name in texts else "" for name in self.names] if texts else None


def is_caption(value: Any) -> bool:
    """Whether it is a text, or a list of texts."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(each, str) for each in value))


def texts_in(value: Any) -> list[str]:
    """A caption or several, without empty ones; none for anything else."""
    return [*filter(None, [value] if isinstance(value, str) else value)] if is_caption(value) else []


def first_text(value: Any) -> str:
    """The first of `texts_in`, or ""."""
    return next(iter(texts_in(value)), "")


def num_with_several(values: Sequence[Any]) -> int:
    """How many of `values` have more than one caption."""
    return sum(len(texts_in(value)) > 1 for value in values)


def caption_in(text: str) -> str:
    """In a file of its own."""
    return text.removeprefix("\ufeff").strip()


def fail_with(error: Exception) -> NoReturn:
    raise error


def class_folders(names: Sequence[str], folders: Iterable[str], root: str) -> list[str]:
    """The first folder of each image. folders: all first folders below `root`. ValueError if one has no image."""
    classes = [name.partition("/")[0] for name in names]
    if empty := sorted(set(folders) - set(classes)):  # it would shift the numbers
        raise ValueError(f"{root}: the class folder {empty[0]!r} contains no image; fill or remove it")
    return classes


def folders_below(root: str, names: Iterable[str]) -> set[str]:
    """The first folders below a root, which is "" or ends with a slash, without hidden ones. names: of all files and
    folders; those of folders end with a slash."""
    below = (name.removeprefix(root).partition("/") for name in names if name.startswith(root))
    return {folder for folder, slash, _ in below if slash and not is_hidden(PurePosixPath(folder))}


def zipped_folder(images: Iterable[str], others: Iterable[str]) -> str:
    """The deepest folder, with a slash, that has all files and no image but in its own folders; "" if there is none."""
    folders = [name.split("/")[:-2] for name in images] + [name.split("/")[:-1] for name in others]
    same = takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
    return "".join(f"{parts[0]}/" for parts in same)


def columns_of_names(names: Sequence[str], folders: Iterable[str], root: str) -> dict[str, Column]:
    """The file name up to the first underscore, and the first folder, where they can be labels. folders, root: as of
    `class_folders`."""
    prefixes = list(map(prefix, names))
    begin = sorted(set(filter(None, prefixes)))
    more = ", ..." if len(begin) > 5 else ""
    found = {"file_name": Column(", ".join(begin[:5]) + more, lambda: prefixes)} if len(begin) > 1 else {}
    if all("/" in name for name in names):
        found["folder"] = Column("folders", partial(class_folders, names, folders, root))
    return found


def stem(name: str) -> str:
    """The path without the extension, in composed characters."""
    return composed(str(PurePosixPath(name).with_suffix("")))


def parent(name: str) -> str:
    """The folder of a file; "" is the root."""
    return name.rpartition("/")[0]


def prefix(name: str) -> str | None:
    """The file name up to the first underscore, the class in guided-diffusion's data. None without an underscore."""
    start, underscore, _ = name.rpartition("/")[2].partition("_")
    return start if underscore else None
