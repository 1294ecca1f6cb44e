"""A folder as of MVTec AD (Bergmann et al. 2019): test/good, test/DEFECT, ground_truth/DEFECT/NAME_mask.png."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ddpm import check
from ddpm.data.anomalies.base import GOOD, AnomalySet, Healthy
from ddpm.data.images import FILTERS, Preparation, UnusableImage, height_width
from ddpm.data.open_image import open_image
from ddpm.data.sources.base import is_image_name


@dataclass(frozen=True)
class Mvtec:
    """root: of one object or texture. A model for it is trained with data=folder data.source.root=ROOT/train.

    resize, crop: as the model's data has them. A pixel of a smaller mask is anomalous if half of it was, or as much as
    of any.
    """

    root: str
    resize: str | None
    crop: int | tuple[int, int] | None

    def __post_init__(self) -> None:
        if self.resize is not None:
            check.one_of("anomalies.resize", self.resize, FILTERS)

    def read(self, shape: tuple[int, int, int], healthy: Healthy) -> AnomalySet:
        root = Path(self.root)
        folders = sorted(path for path in (root / "test").glob("*") if path.is_dir())
        if not any(folder.name == GOOD for folder in folders) or len(folders) < 2:
            check.fail("anomalies.root", str(root), "a folder with test/good and test/DEFECT, as of MVTec AD")
        images, masks, kinds = [], [], []
        for folder in folders:
            for path in sorted(each for each in folder.iterdir() if is_image_name(each.name)):
                image, mask = self.pair(root, path, shape)
                images.append(image)
                masks.append(mask)
                kinds.append(folder.name)
        numbers = torch.arange(len(images))
        return AnomalySet(torch.stack(images), torch.stack(masks), tuple(kinds), numbers, f"mvtec {root.name}")

    def pair(self, root: Path, path: Path, shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 `[C, H, W]` and bool `[H, W]`."""
        channels, *size = shape
        crop = None if self.crop is None else height_width("anomalies.crop", self.crop)
        image = opened(path)
        pixels = prepared(Preparation(channels, tuple(size), crop, self.resize), image, path)
        if path.parent.name == GOOD:
            return pixels, torch.zeros(size, dtype=torch.bool)
        truth = root / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        if not truth.is_file():
            raise ValueError(f"{path} has no mask: {truth} is not there")
        mask = opened(truth)
        if mask.size != image.size:
            raise ValueError(f"{truth} is {mask.height} x {mask.width}, but {path} is {image.height} x {image.width}")
        binary = mask.convert("L").point(lambda level: 255 * (level > 0))
        covered = prepared(Preparation(1, tuple(size), crop, self.resize and "box"), binary, truth)[0]
        return pixels, covered_enough(covered)


def covered_enough(covered: torch.Tensor) -> torch.Tensor:
    """bool `[H, W]` from uint8, how much of a pixel is anomalous."""
    return (covered >= covered.max().clamp(max=128)) & (covered > 0)


def opened(path: Path):
    try:
        image = open_image(path)
        image.load()
    except (UnusableImage, OSError, SyntaxError) as error:
        raise ValueError(f"{path}: {error}") from None
    return image


def prepared(preparation: Preparation, image, path: Path) -> torch.Tensor:
    try:
        return torch.from_numpy(np.array(preparation(image)))
    except UnusableImage as error:
        said = str(error).replace("data.", "anomalies.", 1).replace("set data.resize", "set anomalies.resize")
        raise ValueError(f"{path} {said}") from None
