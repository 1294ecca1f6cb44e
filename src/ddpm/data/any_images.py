"""Images of any program, in a folder, a .zip or .tar, an .npz or .npy, or Parquet files, or one image file."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ddpm.data.datamodule import ImageDataModule
from ddpm.data.images import FULL_WHITE, Misfit, turn_upright
from ddpm.data.problems import Problem, list_problems
from ddpm.data.sources.base import AnnotatedImages, Images, Source, captions_of
from ddpm.data.sources.folder import Folder, ImageFile, image_names, is_image_file
from ddpm.data.sources.npz import Npz
from ddpm.data.sources.parquet import Parquet
from ddpm.data.sources.webdataset import WebDataset
from ddpm.data.sources.zip import Zip
from ddpm.data.white import brightest_of_sample, describe_dark

BY_SUFFIX = {".zip": Zip, ".npz": Npz, ".npy": Npz, ".parquet": Parquet, ".tar": WebDataset}
GREY = ("1", "L", "LA", "La", "I", "F")


def image_source(path: str | Path) -> Source:
    """The source that reads `path`, by its type and extension. Raises ValueError if none does."""
    path = generated_in(Path(path))
    if path.is_dir():
        return folder_source(path)
    if path.is_file() and is_image_file(path):
        return ImageFile(str(path))
    if path.suffix.lower() not in BY_SUFFIX or not path.is_file():
        is_it = "is another kind of file" if path.is_file() else "is not a file" if path.exists() else "does not exist"
        raise ValueError(
            f"{path} {is_it}; give a folder, .zip or .tar of images, an image file, an .npz or .npy of uint8 pixels "
            "[N, H, W, C], a .parquet file or a folder of such files"
        )
    return BY_SUFFIX[path.suffix.lower()](str(path))


def generated_in(path: Path) -> Path:
    """The images that sample.py wrote to a folder, beside which lies a grid of them; any other path is returned."""
    if not (path / "generation.json").is_file():
        return path
    return next((found for name in ("samples.npz", "images") if (found := path / name).exists()), path)


def folder_source(path: Path) -> Source:
    names, _ = image_names(path)
    if not names and any(path.glob("*.parquet")):
        return Parquet(str(path))
    if not names:
        raise ValueError(f"{path} contains neither images (png, jpg, webp, bmp, tif, gif) nor .parquet files")
    direct = sorted(name for name in names if "/" not in name)
    if 0 < len(direct) < len(names) and not (path / "dataset.json").is_file():
        below = min(set(names) - set(direct))
        raise ValueError(
            f"{path} contains images both directly ({direct[0]}) and in subfolders ({below}); "
            f"give a folder with only the images to use, for example {path / below.split('/')[0]}"
        )
    folder = Folder(str(path))
    if splits := folder.splits():
        raise ValueError(f"{path} contains the splits {', '.join(sorted(splits))}; give one of them: {splits['train']}")
    return folder


def image_data(path: str | Path, name: str | None = None) -> ImageDataModule:
    """All images of `path`, in the order of their names or rows, as its split "train".

    Images are not resized, because a resize would affect the measured values: all must have the size of the first one.
    They are grey if all of them are; otherwise grey images become RGB. name: name in tables; None: the last part of the
    path. `content_hash()` identifies the images.
    """
    images = image_source(path).open()
    size, channels = common_shape(images)
    remedy = "resize all of them by one known method first, because a resize affects the measured values"
    return as_they_are(OneSize(images, size, "the first image is", remedy), path, name, channels)


def images_of_shape(path: str | Path, shape: tuple[int, int, int], whose: str, remedy: str) -> ImageDataModule:
    """All images of `path`, as of `image_data`, for a model of images `shape`, (C, H, W): grey becomes RGB, or colour
    becomes grey. whose, remedy: "the ... are" before that size, and what helps, in the error for another size."""
    return as_they_are(OneSize(image_source(path).open(), shape[1:], whose, remedy), path, None, shape[0])


def as_they_are(images: "OneSize", path: str | Path, name: str | None, channels: int) -> ImageDataModule:
    if dark := describe_dark(images.images, brightest_of_sample(images.images)):
        raise ValueError(f"{path} is nearly black: {dark[1]}; store images of 8 bits, or of 16 bits up to {FULL_WHITE}")
    return ImageDataModule(
        images,
        name or Path(path).resolve().name,
        channels,
        images.size,
        64,
        white=FULL_WHITE,
        num_workers=2,
        on_broken="keep",
    )


@contextmanager
def named_as(field: str, path: Path) -> Iterator[None]:
    """Name the field of a command that gives `path`, and not that of a data set, in errors about its images."""
    try:
        yield
    except ValueError as error:
        reason = re.sub(r"^data\.source\.\w+='.*?' ", "", str(error)).removeprefix(f"{path} ")
        raise ValueError(f"{field}={path} {reason}") from error


def common_shape(images: Images) -> tuple[tuple[int, int], int]:
    """The size of the first image that can be read, ValueError if none can; 3 channels if any is in colour, else 1."""
    size, problems = None, []
    for number in range(len(images)):
        try:
            if size is None:
                size = size_of(open_any(images, number))
            if channels_of(images.image(number)) == 3:
                return size, 3
        except Exception as error:  # any error of a broken image
            problems.append(Problem(number, images.name(number), str(error)))
    if size is None:
        raise ValueError(list_problems("No image can be read", problems))
    return size, 1


def open_any(images: Images, number: int) -> Image.Image | np.ndarray:
    """The image, rotated as its EXIF orientation states."""
    image = images.image(number)
    return image if isinstance(image, np.ndarray) else turn_upright(image)


def size_of(image: Image.Image | np.ndarray) -> tuple[int, int]:
    """(height, width)"""
    return image.shape[:2] if isinstance(image, np.ndarray) else (image.height, image.width)


def channels_of(image: Image.Image | np.ndarray) -> int:
    if isinstance(image, np.ndarray):
        return image.shape[2]
    return 1 if image.mode in GREY or image.mode.startswith("I;16") else 3


@dataclass(frozen=True)
class OneSize(AnnotatedImages):
    """Open images, without those of another size. whose, remedy: in the error for them, see `images_of_shape`."""

    size: tuple[int, int]
    whose: str
    remedy: str

    def open(self) -> "OneSize":
        return self

    @property
    def captions(self) -> Sequence[str] | None:
        return captions_of(self.images)

    def image(self, index: int) -> Image.Image | np.ndarray:
        image = open_any(self.images, index)
        size = size_of(image)
        if size != self.size:
            what = f"is {size[0]} x {size[1]}, but {self.whose} {self.size[0]} x {self.size[1]}"
            raise Misfit(what, self.remedy)
        return image

    def fingerprint(self) -> str:
        return self.images.fingerprint()
