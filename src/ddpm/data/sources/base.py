"""Interfaces of image sources: `Source` describes a data set, and `open` returns its `Images`."""

import glob
import hashlib
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple, Protocol, runtime_checkable
from unicodedata import normalize

import numpy as np
from PIL import Image
from torch import Tensor

from ddpm.base import check
from ddpm.data.open_image import is_hidden

EXTENSIONS = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")


HELD_OUT = ("test", "val", "valid", "validation", "dev")
SAME = {"training": "train", "testing": "test", "eval": "test", "evaluation": "test"}
"""Other names of splits."""


class Images(Protocol):
    """Numbered images. They are sent to worker processes, so each process opens its own files."""

    labels: Tensor  # int64 [N], -1 for no label
    class_names: Sequence[str]  # empty if unknown

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image | np.ndarray:
        """An image, or an array uint8 `[H, W]` or `[H, W, 3]`. A Pillow image may be decoded on first use."""
        ...

    def name(self, index: int) -> str:
        """Name of an image in error messages."""
        ...

    def fingerprint(self) -> str:
        """A hash that changes with the data, computed without decoding (from names and sizes, for example)."""
        ...


class Column(NamedTuple):
    """Values that can be labels (`data.labels`). where: they are, in messages. read: a value for each image, None for
    none. names: of the classes, if the values are their numbers."""

    where: str
    read: Callable[[], Sequence[Any]]
    names: tuple[str, ...] = ()


def captions_of(images: Images) -> Sequence[str] | None:
    """The captions of images that have some: a text for each, "" for none."""
    return getattr(images, "captions", None)


def explain_no_captions(images: Images) -> str:
    """ ": REASON" if the source has one."""
    problem = getattr(images, "caption_problem", "")
    return f": {problem}" if problem else ""


class Source(Protocol):
    def open(self) -> Images:
        """Open the images. Raises ValueError with a remedy if there are none."""
        ...


def own_test_split(source: Source) -> tuple[Source | None, str]:
    """The test split of a source that has one. Else None, and why no split of the source is one, or ""."""
    find = getattr(source, "test_split", None)
    return (None, "") if find is None else find()


@runtime_checkable
class Downloadable(Protocol):
    def download(self) -> None:
        """Download missing files. Called in one process per machine."""
        ...


@dataclass(frozen=True)
class ArrayImages:
    """pixels: uint8 `[N, H, W]` or `[N, H, W, 3]`; labels: int64 `[N]`; label_problem: see `Labels`."""

    title: str
    pixels: np.ndarray
    labels: Tensor
    class_names: tuple[str, ...]
    label_problem: str = ""

    def __len__(self) -> int:
        return len(self.pixels)

    def image(self, index: int) -> np.ndarray:
        pixels = self.pixels[index]
        return pixels if pixels.ndim == 3 else pixels[:, :, None]

    def name(self, index: int) -> str:
        return f"{self.title} image {index}"

    def fingerprint(self) -> str:
        return sha256_of_parts([np.ascontiguousarray(self.pixels).tobytes()])


@dataclass(frozen=True)
class AnnotatedImages:
    """Images of a source. Subclasses add something to each."""

    images: Images

    @property
    def labels(self) -> Tensor:
        return self.images.labels

    @property
    def class_names(self) -> Sequence[str]:
        return self.images.class_names

    @property
    def label_problem(self) -> str:
        return getattr(self.images, "label_problem", "")

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> Any:
        return self.images.image(index)

    def name(self, index: int) -> str:
        return self.images.name(index)


@dataclass(frozen=True)
class DescribedImages(AnnotatedImages):
    """captions: a text for each image."""

    captions: Sequence[str]

    def fingerprint(self) -> str:
        return sha256_of_parts([self.images.fingerprint(), *self.captions])


def matching_files(path: str | Sequence[str], inside: str, what: str) -> list[str]:
    """Files of a path, folder or glob, or a list of these. inside: the glob for files of a folder."""
    patterns = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    found: list[str] = []
    for pattern in map(str, patterns):
        is_folder = os.path.isdir(pattern)
        within = os.path.join(glob.escape(pattern), inside) if is_folder else pattern
        matches = [pattern] if os.path.isfile(pattern) else sorted(glob.glob(within))
        if not matches:
            check.fail("data.source.path", pattern, f"{what}, a folder of them or a pattern that matches files")
        if is_folder:
            require_one_split(pattern, [os.path.basename(match) for match in matches])
        found += matches
    return found


def require_one_split(folder: str, files: Sequence[str]) -> None:
    """ValueError if a part of a name says that some of the files are for training, and one that others are not, as
    train-00000-of-00002.parquet and test-00000-of-00001.parquet."""
    parts = {SAME.get(part.lower(), part.lower()): part for file in files for part in re.findall("[A-Za-z]+", file)}
    held_out = sorted(parts.keys() & {*HELD_OUT})
    if "train" in parts and held_out:
        those = os.path.join(folder, f"*{parts['train']}*{os.path.splitext(files[0])[1]}")
        raise ValueError(
            f"{folder} has files of the splits train, {', '.join(held_out)}; give one of them alone, in a folder "
            f"of its own or with data.source.path={those}, and another with data.test_source"
        )


def composed(name: str) -> str:
    """In composed Unicode characters (NFC), to compare names: some programs of a Mac write decomposed ones."""
    return normalize("NFC", name)


def refuse_repeated(names: Iterable[str], archive: str | os.PathLike) -> None:
    """Raise ValueError if two files of an archive have one name. Programs differ in which of them they read."""
    if repeated := [name for name, times in Counter(map(posixpath.normpath, names)).items() if times > 1]:
        num = f"{len(repeated)} name{'s' if len(repeated) > 1 else ''}"
        raise ValueError(f"{archive} has {num} twice, the first is {repeated[0]!r}; unpack it and pack it again")


def require_utf8(names: Iterable[str], where: str | os.PathLike) -> None:
    """Raise ValueError for names in other encodings, which cannot be printed or stored."""
    if wrong := [name for name in names if re.search("[\ud800-\udfff]", name)]:
        first = os.fsencode(min(wrong))
        raise ValueError(f"{where}: {len(wrong)} names of files are not UTF-8, the first is {first!r}; rename them")


def sha256_of_parts(parts: Iterable[bytes | str]) -> str:
    """sha256 of the parts one after another, as hexadecimal digits."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part if isinstance(part, bytes) else part.encode() + b"\n")
    return total.hexdigest()


def is_image_name(name: str) -> bool:
    """By extension; hidden files and folders (`._a.png`, `__MACOSX`) are not images."""
    path = PurePosixPath(name)
    return path.suffix.lower() in EXTENSIONS and not is_hidden(path)
