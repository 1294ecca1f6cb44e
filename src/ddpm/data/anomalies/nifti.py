"""Slices of medical volumes with lesion masks: images/NAME.nii.gz and masks/NAME.nii.gz."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ddpm.base import check
from ddpm.data.anomalies.base import GOOD, AnomalySet, Healthy, our_fields
from ddpm.data.anomalies.mvtec import is_covered, preparations, prepare_mask
from ddpm.data.images import Resize
from ddpm.data.sources.nifti import AXES, Nifti, canonical, canonical_shape, slice_upright


@dataclass(frozen=True)
class NiftiLesions:
    """root: parent of both folders. axis, slices, step, window, resize: as in the data of the model (data=nifti)."""

    root: str
    axis: str
    slices: Sequence[int] | None
    step: int
    window: Sequence[float]
    resize: Resize

    def __post_init__(self) -> None:
        self.source()
        check.fields(self)

    def read(self, shape: tuple[int, int, int], healthy: Healthy) -> AnomalySet:
        root, axis = Path(self.root), AXES.index(self.axis)
        with our_fields():
            slices = self.source().open()
        of_image, of_mask = preparations(shape, None, self.resize)
        images, masks, volume, known = [], [], None, None
        for index, (path, number) in enumerate(slices.places):
            if path != known:
                known, volume = path, self.lesions(root, path)
            drawn = Image.fromarray(255 * slice_upright(volume, axis, number).astype(np.uint8))
            images.append(prepare_mask(of_image, Image.fromarray(slices.image(index)[:, :, 0]), path))
            masks.append(is_covered(prepare_mask(of_mask, drawn, path)[0]))
        kinds = tuple("lesion" if mask.any() else GOOD for mask in masks)
        numbers = torch.arange(len(images))
        return AnomalySet(torch.stack(images), torch.stack(masks), kinds, numbers, f"nifti {root.name}")

    def source(self) -> Nifti:
        with our_fields():
            return Nifti(str(Path(self.root) / "images"), self.axis, self.slices, self.step, self.window)

    def lesions(self, root: Path, path: Path) -> np.ndarray:
        """The mask of a volume, bool `[X, Y, Z]`."""
        truth = root / "masks" / path.relative_to(root / "images")
        if not truth.is_file():
            raise ValueError(f"{path} has no mask: {truth} does not exist")
        if canonical_shape(truth) != canonical_shape(path):
            raise ValueError(f"{truth} has the shape {canonical_shape(truth)}, but {path} {canonical_shape(path)}")
        return canonical(truth) > 0
