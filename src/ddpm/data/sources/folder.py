"""A folder of image files: one subfolder per class, flat, or as written by EDM's dataset_tool.py (`dataset.json`)."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ddpm.base import check
from ddpm.base.untrusted import json_data, text_file
from ddpm.data.contents import describe_counts
from ddpm.data.open_image import head_of, is_image_content, may_be_image, open_image
from ddpm.data.sources.base import edm_labels, is_image_name, sha256_of_parts

LAYOUTS = ("auto", "classes", "flat", "edm")
HELD_OUT = ("test", "val", "valid", "validation")
NO_SPLITS = ("ground_truth",)
"""Folders of MVTec AD that are neither a split nor a class."""
TABLE, CAPTION_FIELDS = "metadata.jsonl", ("text", "caption", "prompt")
TABLES = (TABLE, "dataset.json")


@dataclass(frozen=True)
class Folder:
    """root: the folder. Hidden files are ignored. Other files are images by extension or content, or are passed over.

    layout: `classes` takes the first folder below the root as the class, as torchvision's ImageFolder does, classes in
    the order of their names; `flat` takes every image below the root, without labels; `edm` takes labels from
    `dataset.json`; `auto` is edm if that file is there, else flat if an image lies directly in the root, else classes.
    With `auto`, a folder that has train/ beside val/ or test/ is that of train/, and the others are its splits.
    """

    root: str
    layout: str = "auto"

    def __post_init__(self) -> None:
        check.one_of("data.source.layout", self.layout, LAYOUTS)

    def open(self) -> "FolderImages":
        root = Path(self.root)
        if not root.is_dir():
            check.fail("data.source.root", str(root), "an existing folder")
        if splits := self.splits():
            return Folder(splits["train"]).open()
        names, passed_over = image_names(root)
        if not names:
            found = f", not {describe_counts(passed_over)}" if passed_over else ""
            check.fail("data.source.root", str(root), f"a folder with images (png, jpg, webp, bmp, tif, gif{found})")
        layout = self.layout if self.layout != "auto" else guess_layout(root, names)
        captions = captions_in(root, names)
        if layout == "edm":
            table = root / "dataset.json"
            if not table.is_file():
                raise ValueError(f"data.source.layout=edm needs {table}; use layout=classes or layout=flat")
            labels = edm_labels(text_file(table), names, str(table)), ()
        elif layout == "flat":
            labels = torch.full((len(names),), -1), ()
        else:
            labels = class_labels(root, names)
        return FolderImages(root, names, *labels, captions, passed_over)

    def splits(self) -> dict[str, str]:
        """The folders of train/ and the other splits in the root, by name. Empty unless it has nothing else."""
        root = Path(self.root)
        if self.layout != "auto" or not (root / "train").is_dir():
            return {}
        inside = {entry.name: str(entry) for entry in root.iterdir() if not entry.name.startswith(".")}
        folders = {name: path for name, path in inside.items() if Path(path).is_dir()}
        is_split = len(folders) > 1 and folders.keys() <= {"train", *HELD_OUT, *NO_SPLITS}
        has_images = any(is_image_name(name) for name in inside) or "dataset.json" in inside
        return folders if is_split and not has_images else {}

    def test_split(self) -> "Folder | None":
        """The first of test/ and val/ that has the classes of train/."""
        splits = self.splits()
        known = [Folder(splits[name]) for name in HELD_OUT if name in splits]
        return next((each for each in known if each.class_folders() == Folder(splits["train"]).class_folders()), None)

    def class_folders(self) -> set[str]:
        return {entry.name for entry in Path(self.root).iterdir() if entry.is_dir() and not entry.name.startswith(".")}


def image_names(root: Path) -> tuple[list[str], Counter[str]]:
    """Paths of images below the root, sorted, with forward slashes, and the extensions of the other files.

    Links are followed; two paths to one folder raise ValueError.
    """
    found: list[str] = []
    passed_over: Counter[str] = Counter()
    known: dict[tuple[int, int], str] = {}
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        status = os.stat(folder)
        first = known.setdefault((status.st_dev, status.st_ino), folder)
        if first != folder:
            raise ValueError(f"data.source.root: {folder} and {first} are the same folder by a link; remove the link")
        below = Path(folder).relative_to(root)
        for file in files:
            name = (below / file).as_posix()
            looks = may_be_image(below / file) and not is_image_name(name)
            if is_image_name(name) or (looks and is_image_content(head_of(Path(folder, file)))):
                found.append(name)
            elif not file.startswith(".") and file not in TABLES and "__MACOSX" not in below.parts:
                passed_over[Path(file).suffix.lower() or "without extension"] += 1
    return sorted(found), passed_over


def captions_in(root: Path, names: list[str]) -> list[str] | None:
    """The texts of `metadata.jsonl` files, in the root or beside the images (the layout of Hugging Face's ImageFolder):
    {"file_name": ..., "text": ...} in each line. None without such a file. Raises ValueError unless each image has
    one."""
    tables = [root / folder / TABLE for folder in sorted({"", *(str(Path(name).parent) for name in names)})]
    found: dict[str, str] = {}
    for table in dict.fromkeys(table for table in tables if table.is_file()):
        for number, line in enumerate(text_file(table).splitlines(), 1):
            if not line.strip():
                continue
            where = f"{table}, line {number}"
            entry = json_data(line, where)
            fields = [each for each in CAPTION_FIELDS if isinstance(entry, dict) and isinstance(entry.get(each), str)]
            if not fields or not isinstance(entry.get("file_name"), str):
                raise ValueError(f'{where} must be {{"file_name": ..., "text": ...}} with texts')
            name = Path(entry["file_name"])
            if name.is_absolute() or ".." in name.parts:
                raise ValueError(f"{where}: file_name must lie below the table, got {str(name)!r:.200}")
            found[(table.parent / name).relative_to(root).as_posix()] = entry[fields[0]]
    missing = [name for name in names if name not in found]
    if found and missing:
        raise ValueError(f"{TABLE} has no text for {len(missing)} of {len(names)} images, the first is {missing[0]}")
    if len(found) > len(names):
        raise ValueError(f"{TABLE} names a file that is no image below {root}: {min(found.keys() - set(names))}")
    return [found[name] for name in names] if found else None


def guess_layout(root: Path, names: list[str]) -> str:
    if (root / "dataset.json").is_file():
        return "edm"
    direct = [name for name in names if "/" not in name]
    if direct and len(direct) < len(names):
        raise ValueError(
            f"{root} has images both directly ({direct[0]}) and in subfolders; "
            "choose one with data.source.layout=flat or data.source.layout=classes"
        )
    return "flat" if direct else "classes"


def class_labels(root: Path, names: list[str]) -> tuple[Tensor, tuple[str, ...]]:
    """int64 `[N]` and the class names. A class folder without images raises ValueError, because it would shift the
    numbers."""
    stray = [name for name in names if "/" not in name]
    if stray:
        raise ValueError(f"{root}: {stray[0]} is not in a class folder; move it, or set data.source.layout=flat")
    first_folders = [name.split("/", 1)[0] for name in names]
    class_names = tuple(sorted(set(first_folders)))
    folders = {entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    empty = sorted(folders - set(class_names))
    if empty:
        raise ValueError(f"{root}: the class folder {empty[0]!r} contains no image; fill or remove it")
    number = {name: i for i, name in enumerate(class_names)}
    return torch.tensor([number[folder] for folder in first_folders], dtype=torch.int64), class_names


@dataclass(frozen=True)
class FolderImages:
    root: Path
    names: list[str]
    labels: Tensor
    class_names: tuple[str, ...]
    captions: list[str] | None = None
    passed_over: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Image.Image:
        return open_image(self.root / self.names[index])

    def name(self, index: int) -> str:
        return str(self.root / self.names[index])

    def fingerprint(self) -> str:
        return sha256_of_parts(f"{name} {(self.root / name).stat().st_size}" for name in self.names)
