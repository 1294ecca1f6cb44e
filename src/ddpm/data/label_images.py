"""Label images: a label for each pixel of an image, in a PNG file of the same size and stem in another folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import numpy as np
from PIL import Image

from ddpm.base import check
from ddpm.data.images import Misfit, Preparation, UnusableImage, turn_upright
from ddpm.data.open_image import open_image
from ddpm.data.sources.base import AnnotatedImages, Images, captions_of, sha256_of_parts

Pair = tuple[Image.Image, Image.Image]
"""An image and its label image."""


@dataclass(frozen=True)
class LabelledImages(AnnotatedImages):
    """The images of a source, each with its label image. paths: of the label images."""

    paths: list[Path]

    @property
    def captions(self) -> Sequence[str] | None:
        return captions_of(self.images)

    def image(self, index: int) -> Pair:
        image = turn_upright(self.images.image(index))
        try:
            return image, open_image(self.paths[index])
        except UnusableImage as error:
            raise UnusableImage(f"its label image {self.paths[index]} {error}") from error

    def fingerprint(self) -> str:
        sizes = (str(path.stat().st_size) for path in self.paths)
        return sha256_of_parts([self.images.fingerprint(), *sizes])


def with_label_images(images: Images, folder: str) -> LabelledImages:
    """folder: `data.label_images`; the label image of ROOT/a/b.jpg is folder/a/b.png. ValueError if one is missing."""
    names = getattr(images, "names", None)
    if names is None:
        check.fail("data.label_images", folder, "null for this data, whose images are not files; choose data=folder")
    paths = [Path(folder) / PurePosixPath(name).with_suffix(".png") for name in names]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ValueError(
            f"data.label_images={folder} has no label image for {len(missing)} of {len(paths)} images; the first is "
            f"{missing[0]}"
        )
    return LabelledImages(images, paths)


@dataclass(frozen=True)
class LabelledPreparation:
    """Converts an image and its label image to uint8 `[channels + 1, *size]`, the last channel with the labels.

    The label image is cropped and resized as the image is, to the nearest label.
    """

    preparation: Preparation
    num_labels: Annotated[int, check.integers(1, 256)]

    def __post_init__(self) -> None:
        check.fields(self, "data.")

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.preparation.shape
        return channels + 1, height, width

    @property
    def described(self) -> str:
        return repr(self) + self.preparation.described.removeprefix(repr(self.preparation))

    def __call__(self, pair: Pair) -> np.ndarray:
        image, labels = pair
        if labels.size != image.size:
            raise Misfit(
                f"is {image.height} x {image.width}, but its label image is {labels.height} x {labels.width}",
                "make both of one size",
            )
        if labels.mode not in ("L", "P"):
            raise UnusableImage(f"its label image has the mode {labels.mode}; store labels as 8-bit grey or a palette")
        largest = int(np.asarray(labels).max())
        if largest >= self.num_labels:
            raise UnusableImage(f"its label image has the label {largest}, but data.num_labels is {self.num_labels}")
        framed = self.preparation.framed(labels, Image.Resampling.NEAREST)
        return np.concatenate([self.preparation(image), np.asarray(framed)[None]])
