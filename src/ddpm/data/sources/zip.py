"""A zip file of images: a folder that was zipped, or PNGs and `dataset.json` of EDM's dataset_tool.py.

Karras et al. 2022 ("Elucidating the Design Space of Diffusion-Based Generative Models").
"""

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from zipfile import ZipFile, ZipInfo

from PIL import Image

from ddpm.base import check
from ddpm.base.memory import require_memory
from ddpm.base.untrusted import utf8
from ddpm.data.contents import describe_counts
from ddpm.data.open_image import NUM_BYTES, is_hidden, is_image_content, may_be_image, open_image
from ddpm.data.sources import tables
from ddpm.data.sources.base import is_image_name, refuse_repeated, sha256_of_parts
from ddpm.data.sources.layout import ABOVE, LAYOUTS, ImageFiles, folders_below, splits_in, zipped_folder

MAX_NAMED = 20
"""Folders that an error names."""


@dataclass(frozen=True)
class Zip(check.Checked):
    """path: the file. It is not unpacked to the disk. Uncompressed entries are read faster, and PNGs do not compress
    further. layout: as of a folder with these files; None: as auto, but folders are not classes, as in earlier
    versions. within: the folder in the file that is read; "": the folder that was zipped.
    """

    path: str
    layout: Annotated[str, check.words(*LAYOUTS)] | None = "auto"
    within: str = ""

    def open(self) -> "ZipImages":
        path = Path(self.path)
        if not path.is_file():
            check.fail("data.source.path", str(path), "an existing zip file")
        try:
            with ZipFile(path) as archive:
                files = files_in(archive)
                named = [entry.filename for entry in archive.infolist()]
                entries = {n: e for n, e in files.items() if is_image_name(n) or is_image(archive, e)}
        except Exception as error:  # any error of a damaged or hostile file
            raise ValueError(f"data.source.path={str(path)!r} cannot be read as a zip file: {error}") from error
        refuse_repeated((name.replace("\\", "/") for name in named if not name.endswith("/")), path)
        others = {name for name in files if not is_hidden(PurePosixPath(name))} - entries.keys()
        root = f"{self.within.strip('/')}/" if self.within else zipped_folder(entries, others)
        above = [name for name in others if self.within and is_beside(name, root)]
        beside = {f"{ABOVE}/{name.rpartition('/')[2]}": name for name in above}
        names, others = (sorted(n.removeprefix(root) for n in each if n.startswith(root)) for each in (entries, others))
        if not names:
            kinds = describe_counts(Counter(PurePosixPath(n).suffix.lower() or "without extension" for n in others))
            found = f", not {kinds}" if others else ""
            of_images = f"images (png, jpg, webp, bmp, tif, gif{found})"
            if self.within and entries:
                known = {str(above) for name in entries for above in list(PurePosixPath(name).parents)[:-1]}
                listed = ", ".join(sorted(known, key=lambda folder: (folder.count("/"), folder))[:MAX_NAMED])
                needed = f'"" or a folder in {path} with {of_images}: {listed or "it has none"}'
                check.fail("data.source.within", self.within, needed)
            check.fail("data.source.path", f"{path}/{root}", f"a zip file with {of_images}")
        folders = folders_below(root, named)
        splits = splits_in(folders, [name for name in [*names, *others] if "/" not in name])
        if splits and self.layout == "auto":
            chosen = f"data.source.within={root}{splits['train']}, and another with data.test_source"
            raise ValueError(f"{path} has the splits {', '.join(splits.values())}; choose one with {chosen}")
        files |= {root + short: files[name] for short, name in beside.items()}
        others += beside
        place = f"{self.path}/{root}".removesuffix("/")
        images = ZipImages(place, names, others, path=path, entries=[entries[root + name] for name in names])
        images.texts = {name: files[root + name] for name in others}
        return images.arranged(self.layout, folders)


def is_beside(name: str, root: str) -> bool:
    """Whether a file is a table beside the folder `root`, which ends with a slash."""
    return tables.is_table(name) and name.rpartition("/")[0] == root[:-1].rpartition("/")[0]


def files_in(archive: ZipFile) -> dict[str, ZipInfo]:
    """The entries that are no folders, by name. Some programs of Windows separate folders by backslashes.

    Raises ValueError for a link, whose content is a path.
    """
    for entry in archive.infolist():
        entry.filename = entry.filename.replace("\\", "/")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise ValueError(f"{entry.filename} is a link; pack files instead (zip without -y)")
    return {entry.filename: entry for entry in archive.infolist() if not entry.is_dir()}


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
    texts: dict[str, ZipInfo] = field(default_factory=dict, repr=False)  # of the others, by name from the root
    opened: tuple[int, ZipFile] | None = field(default=None, repr=False)  # process id, and the file it opened

    def name(self, index: int) -> str:
        return f"{self.path}/{self.entries[index].filename}"

    def text(self, name: str) -> str:
        """By its name from the root."""
        entry = self.texts[name]
        return utf8(read_entry(self._archive(), entry), f"{self.path}/{entry.filename}")

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
