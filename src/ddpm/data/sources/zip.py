"""A zip file of images: a folder that was zipped, or PNGs and `dataset.json`, as EDM's dataset_tool.py writes them
(Karras et al. 2022)."""

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import ZipFile, ZipInfo

from PIL import Image

from ddpm.base import check
from ddpm.base.memory import require_memory
from ddpm.base.untrusted import utf8
from ddpm.data.open_image import NUM_BYTES, is_hidden, is_image_content, may_be_image, open_image
from ddpm.data.sources.base import is_image_name, sha256_of_parts
from ddpm.data.sources.layout import HELD_OUT, LAYOUTS, ImageFiles, splits_in


@dataclass(frozen=True)
class Zip:
    """path: the file. It is not unpacked to the disk. Uncompressed entries are read faster, and PNGs do not compress
    further. layout: as of a folder with these files; None: as auto, but folders are neither classes nor splits, as in
    earlier versions. within: the folder in the file that is read; "": the one folder that holds folders alone and all
    files, if there is one, else all of the file.
    """

    path: str
    layout: str | None = "auto"
    within: str = ""

    def __post_init__(self) -> None:
        check.one_of("data.source.layout", self.layout, (*LAYOUTS, None))

    def open(self) -> "ZipImages":
        if not Path(self.path).is_file():
            check.fail("data.source.path", self.path, "an existing zip file")
        try:
            entries, others = self.listed()
        except Exception as error:  # any error of a damaged or hostile file
            raise ValueError(f"data.source.path={self.path!r} cannot be read as a zip file: {error}") from error
        if not entries:
            check.fail("data.source.path", self.path, "a zip file with images (png, jpg, webp, bmp, tif, gif)")
        if splits := self.splits():
            return splits["train"].open()
        names = sorted(entries)
        images = ZipImages(self.path, names, others, path=Path(self.path), entries=[entries[name] for name in names])
        return images.arranged(self.layout, folders_in(names))

    def listed(self) -> tuple[dict[str, ZipInfo], list[str]]:
        """The entries of images and the other files, by names from the root."""
        entries, others = listing(self.path, os.stat(self.path).st_mtime_ns)
        root = f"{self.within}/" if self.within else common_root(entries, others)
        inside = {name.removeprefix(root): entry for name, entry in entries.items() if name.startswith(root)}
        return inside, [name.removeprefix(root) for name in others if name.startswith(root)]

    def splits(self) -> dict[str, "Zip"]:
        """train/ and the other splits by name, as of a folder."""
        try:
            entries, others = self.listed() if self.layout == "auto" else ({}, [])
        except Exception:  # `open` reports it
            return {}
        found = splits_in(folders_in(entries), (name for name in [*entries, *others] if "/" not in name))
        root = next(iter(entries.values())).filename.removesuffix(next(iter(entries))) if found else ""
        return {name: replace(self, within=root + name) for name in found}

    def test_split(self) -> "Zip | None":
        """The first of test/ and val/ that has the classes of train/."""
        splits = self.splits()
        classes = {name: folders_in(split.listed()[0]) for name, split in splits.items()}
        return next((splits[name] for name in HELD_OUT if name in splits and classes[name] == classes["train"]), None)


@lru_cache(maxsize=2)
def listing(path: str, changed: int) -> tuple[dict[str, ZipInfo], list[str]]:
    """Entries of images by name, and the names of other files that are not hidden. changed: the time, for the cache."""
    with ZipFile(path) as archive:
        files = [each for each in archive.infolist() if not each.is_dir()]
        entries = {each.filename: each for each in files if is_image_name(each.filename) or is_image(archive, each)}
    others = {each.filename for each in files} - entries.keys()
    return entries, sorted(name for name in others if not is_hidden(PurePosixPath(name)))


def common_root(entries: Collection[str], others: Collection[str]) -> str:
    """The folder, with a slash, that has all files, if it holds only folders of images: the one that was zipped."""
    root = ""
    while True:
        firsts = {name.removeprefix(root).partition("/")[0] for name in [*entries, *others]}
        inner = f"{root}{min(firsts, default='')}/"
        if not entries or len(firsts) != 1 or any("/" not in name.removeprefix(inner) for name in entries):
            return root
        root = inner


def folders_in(names: Iterable[str]) -> set[str]:
    return {name.partition("/")[0] for name in names if "/" in name}


def is_image(archive: ZipFile, entry: ZipInfo) -> bool:
    """By its content, if its name may be that of an image without extension, or with another one."""
    if not may_be_image(PurePosixPath(entry.filename)):
        return False
    with archive.open(entry) as file:
        return is_image_content(file.read(NUM_BYTES))


def read_entry(archive: ZipFile, entry: ZipInfo) -> bytes:
    require_memory(entry.file_size, entry.filename)
    return archive.read(entry)


@dataclass
class ZipImages(ImageFiles):
    path: Path = Path()
    entries: list[ZipInfo] = field(default_factory=list, repr=False)
    opened: tuple[int, ZipFile] | None = field(default=None, repr=False)  # process id, and the file it opened

    def name(self, index: int) -> str:
        return f"{self.path}/{self.entries[index].filename}"

    def text(self, name: str) -> str:
        """By its name from the root."""
        root = self.entries[0].filename.removesuffix(self.names[0])
        archive = self._archive()
        return utf8(read_entry(archive, archive.getinfo(root + name)), f"{self.path}/{root}{name}")

    def image(self, index: int) -> Image.Image:
        return open_image(read_entry(self._archive(), self.entries[index]))

    def fingerprint(self) -> str:
        return sha256_of_parts(f"{e.filename} {e.file_size} {e.CRC:08x}" for e in self.entries)

    def _archive(self) -> ZipFile:
        """The open file. Each process opens its own, because forked processes share a file position."""
        if self.opened is None or self.opened[0] != os.getpid():
            self.opened = os.getpid(), ZipFile(self.path)
        return self.opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "opened": None}
