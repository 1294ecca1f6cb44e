"""A zip file of images as written by EDM's dataset_tool.py: PNGs, and labels in `dataset.json`. Karras et al. 2022."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import ZipFile, ZipInfo

import torch
from PIL import Image
from torch import Tensor

from ddpm.base import check
from ddpm.base.memory import require_memory
from ddpm.base.untrusted import utf8
from ddpm.data.open_image import NUM_BYTES, is_image_content, may_be_image, open_image
from ddpm.data.sources.base import edm_labels, is_image_name, sha256_of_parts

TABLE = "dataset.json"


@dataclass(frozen=True)
class Zip:
    """path: the file. It is not unpacked to the disk. Uncompressed entries are read faster, and PNGs do not compress
    further."""

    path: str

    def open(self) -> "ZipImages":
        path = Path(self.path)
        if not path.is_file():
            check.fail("data.source.path", str(path), "an existing zip file")
        try:
            with ZipFile(path) as archive:
                listed = [entry for entry in archive.infolist() if not entry.is_dir()]
                entries = [entry for entry in listed if is_image_name(entry.filename) or is_image(archive, entry)]
                entries.sort(key=lambda entry: entry.filename)
                table = read_entry(archive, archive.getinfo(TABLE)) if TABLE in archive.namelist() else None
        except Exception as error:  # any error of a damaged or hostile file
            raise ValueError(f"data.source.path={str(path)!r} cannot be read as a zip file: {error}") from error
        if not entries:
            check.fail("data.source.path", str(path), "a zip file with images (png, jpg, webp, bmp, tif, gif)")
        names = [entry.filename for entry in entries]
        others = {entry.filename for entry in listed} - {*names, TABLE}
        passed_over = Counter(PurePosixPath(name).suffix.lower() or "without extension" for name in others)
        if table is None:
            return ZipImages(path, entries, torch.full((len(names),), -1), passed_over)
        where = f"{path}/{TABLE}"
        return ZipImages(path, entries, edm_labels(utf8(table, where), names, where), passed_over)


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
class ZipImages:
    path: Path
    entries: list[ZipInfo]
    labels: Tensor
    passed_over: Counter[str]
    class_names: tuple[str, ...] = ()
    opened: tuple[int, ZipFile] | None = field(default=None, repr=False)  # process id, and the file it opened

    def __len__(self) -> int:
        return len(self.entries)

    def image(self, index: int) -> Image.Image:
        return open_image(read_entry(self._archive(), self.entries[index]))

    def name(self, index: int) -> str:
        return f"{self.path}/{self.entries[index].filename}"

    def fingerprint(self) -> str:
        return sha256_of_parts(f"{e.filename} {e.file_size} {e.CRC:08x}" for e in self.entries)

    def _archive(self) -> ZipFile:
        """The open file. Each process opens its own, because forked processes share a file position."""
        if self.opened is None or self.opened[0] != os.getpid():
            self.opened = os.getpid(), ZipFile(self.path)
        return self.opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "opened": None}
