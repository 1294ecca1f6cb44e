"""A folder in the layout of MVTec AD (Bergmann et al. 2019): test/good, test/DEFECT,
ground_truth/DEFECT/NAME_mask.png."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ddpm.base import check
from ddpm.data.anomalies.base import GOOD, AnomalySet, Healthy, our_fields
from ddpm.data.images import Preparation, Resize, UnusableImage
from ddpm.data.open_image import open_image
from ddpm.data.sources.base import is_image_name


@dataclass(frozen=True)
class Mvtec(check.Checked):
    """root: folder of one object or texture. Train a model for it with data=folder data.source.root=ROOT/train.

    resize, crop: as in the data of the model. A pixel of a resized mask is anomalous if at least half of its area was,
    or if its anomalous area is the largest of the mask.
    """

    root: str
    resize: Resize
    crop: int | tuple[int, int] | None

    def read(self, shape: tuple[int, int, int], healthy: Healthy) -> AnomalySet:
        root = Path(self.root)
        paths = sorted(path for path in (root / "test").glob("*/*") if is_image_name(path.name))
        kinds = tuple(path.parent.name for path in paths)
        if GOOD not in kinds or len(set(kinds)) < 2:
            check.fail("anomalies.root", str(root), "a folder with images in test/good and test/DEFECT, as in MVTec AD")
        of_image, of_mask = preparations(shape, self.crop, self.resize)
        images, masks = zip(*(pair(root, path, of_image, of_mask) for path in paths), strict=True)
        numbers = torch.arange(len(paths))
        return AnomalySet(torch.stack(images), torch.stack(masks), kinds, numbers, f"mvtec {root.name}")


def preparations(
    shape: tuple[int, int, int], crop: int | tuple[int, int] | None, resize: str | None
) -> tuple[Preparation, Preparation]:
    """The preparation of images, and that of their masks, which gives the anomalous share of each pixel."""
    channels, *size = shape
    frame = None if crop is None else check.height_width("anomalies.crop", crop)
    with our_fields():
        of_image = Preparation(channels, tuple(size), frame, resize)
        return of_image, Preparation(1, tuple(size), frame, resize and "box")


def pair(root: Path, path: Path, of_image: Preparation, of_mask: Preparation) -> tuple[torch.Tensor, torch.Tensor]:
    """An image, uint8 `[C, H, W]`, and its mask, bool `[H, W]`."""
    image = open_mask(path)
    pixels = prepare_mask(of_image, image, path)
    if path.parent.name == GOOD:
        return pixels, torch.zeros(of_image.size, dtype=torch.bool)
    truth = root / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
    if not truth.is_file():
        raise ValueError(f"{path} has no mask: {truth} does not exist")
    mask = open_mask(truth)
    if mask.size != image.size:
        raise ValueError(f"{truth} is {mask.height} x {mask.width}, but {path} is {image.height} x {image.width}")
    binary = mask.convert("L").point(lambda level: 255 * (level > 0))
    wrong = is_covered(prepare_mask(of_mask, binary, truth)[0])
    if not wrong.any():
        raise ValueError(f"{truth} is empty in the part of {path.name} that remains after cropping")
    return pixels, wrong


def is_covered(covered: torch.Tensor) -> torch.Tensor:
    """Mask, bool `[H, W]`, from the anomalous share of each pixel, uint8 `[H, W]`."""
    return (covered >= covered.max().clamp(max=128)) & (covered > 0)


def open_mask(path: Path) -> Image.Image:
    try:
        image = open_image(path)
        image.load()
    except (UnusableImage, OSError, SyntaxError) as error:
        raise ValueError(f"{path}: {error}") from None
    return image


def prepare_mask(preparation: Preparation, image: Image.Image, path: Path) -> torch.Tensor:
    with our_fields():
        try:
            return torch.from_numpy(np.array(preparation(image)))
        except UnusableImage as error:
            raise ValueError(f"{path} {error}") from None
