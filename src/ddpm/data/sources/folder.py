"""A folder of image files: one subfolder per class, flat, or as written by EDM's dataset_tool.py (`dataset.json`)."""

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Annotated

from PIL import Image

from ddpm.base import check
from ddpm.base.untrusted import text_file
from ddpm.data.contents import describe_counts
from ddpm.data.open_image import head_of, is_hidden, is_image_content, may_be_image, open_image
from ddpm.data.sources import tables
from ddpm.data.sources.base import HELD_OUT, is_image_name, require_utf8, sha256_of_parts
from ddpm.data.sources.layout import ABOVE, LAYOUTS, ImageFiles, fail_with, splits_in


@dataclass(frozen=True)
class Folder(check.Checked):
    """root: the folder. Hidden files are ignored. Other files are images by extension or content, or are passed over.

    layout: `classes` takes the first folder below the root as the class, as torchvision's ImageFolder does, classes in
    the order of their names; `flat` takes every image below the root, without labels; `edm` takes labels from
    `dataset.json`; `auto` is edm if that file is there, else flat if an image lies directly in the root, else classes.
    With `auto`, a folder that has train/ beside val/ or test/, or Training/ beside Testing/, is that of train/, and the
    others are its splits. above: the folder of a split, whose tables are of all splits.
    """

    root: str
    layout: Annotated[str, check.words(*LAYOUTS)] = "auto"
    above: str | None = field(default=None, compare=False)

    def open(self) -> "FolderImages":
        root = Path(self.root)
        if not root.is_dir():
            check.fail("data.source.root", str(root), "an existing folder")
        if splits := self.splits():
            return Folder(splits["train"], above=self.root).open()
        images = FolderImages(str(root), *image_names(root))
        if self.above is not None:
            images.others += [f"{ABOVE}/{name}" for name in os.listdir(self.above) if tables.is_table(name)]
        if not images.names:
            found = f", not {describe_counts(images.passed_over)}" if images.others else ""
            check.fail("data.source.root", str(root), f"a folder with images (png, jpg, webp, bmp, tif, gif{found})")
        return images.arranged(self.layout, self.class_folders())

    def splits(self) -> dict[str, str]:
        """The folders of train/ and the other splits in the root, by name. Empty unless it has nothing else."""
        root = Path(self.root)
        if self.layout != "auto" or not root.is_dir():
            return {}
        folders = self.class_folders()
        files = [entry.name for entry in root.iterdir() if entry.name not in folders]
        return {name: str(root / folder) for name, folder in splits_in(folders, files).items()}

    def test_split(self) -> "tuple[Folder | None, str]":
        """The first of test/ and val/ that has images of the classes of train/. Else None, and why none is used."""
        splits, problems = self.splits(), []
        for name in (name for name in HELD_OUT if name in splits):
            split = Folder(splits[name], above=self.root)
            classes = split.class_folders()
            if classes != Folder(splits["train"]).class_folders():
                problems.append(f"{split.root} does not have the class folders of {splits['train']}")
            elif empty := [each for each in sorted(classes or {""}) if not has_image(Path(split.root, each))]:
                problems.append(f"{Path(split.root, empty[0])} has no image")
            else:
                return split, ""
        return None, ", ".join(problems)

    def class_folders(self) -> set[str]:
        return {each.name for each in Path(self.root).iterdir() if each.is_dir() and not is_hidden(PurePath(each.name))}


@dataclass(frozen=True)
class ImageFile:
    """One image. path: of its file."""

    path: str

    def open(self) -> "FolderImages":
        path = Path(self.path)
        return FolderImages(str(path.parent), [path.name], []).arranged("flat", ())


def is_image_file(path: Path) -> bool:
    """By its extension, or else by its content."""
    return is_image_name(path.name) or (may_be_image(Path(path.name)) and is_image_content(head_of(path)))


def has_image(root: Path) -> bool:
    """Whether an image lies below the root."""
    below = (Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names)
    return any(map(is_image_file, below))


def image_names(root: Path) -> tuple[list[str], list[str]]:
    """Paths of images below the root, sorted, with forward slashes, and of the other files.

    Links are followed; two paths to one folder, and a link to nothing that has no name of an image, raise ValueError.
    """
    found: list[str] = []
    others: list[str] = []
    known: dict[tuple[int, int], str] = {}
    for folder, folders, files in os.walk(root, followlinks=True, onerror=fail_with):
        folders[:] = [name for name in folders if not is_hidden(PurePath(name))]
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
            elif not is_hidden(PurePath(file)):
                if not Path(folder, file).exists():  # of a class folder, it would shift the numbers of the others
                    raise ValueError(
                        f"data.source.root: {folder}/{file} is a link to nothing; remove or repair the link"
                    )
                others.append(name)
    require_utf8(found, root)
    return sorted(found), sorted(others)


@dataclass
class FolderImages(ImageFiles):
    def text(self, name: str) -> str:
        return text_file(Path(self.root, name))

    def image(self, index: int) -> Image.Image:
        return open_image(Path(self.root, self.names[index]))

    def fingerprint(self) -> str:
        return sha256_of_parts(f"{name} {Path(self.root, name).stat().st_size}" for name in self.names)
