"""Slices of medical volumes in NIfTI files, `*.nii` and `*.nii.gz`. Needs nibabel: pip install ddpm[nifti]."""

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from ddpm.base import check
from ddpm.data.images import UnusableImage
from ddpm.data.sources.base import sha256_of_parts

AXES = ("sagittal", "coronal", "axial")


@dataclass(frozen=True)
class Nifti:
    """Slices of every volume below `root`, reoriented to left to right, back to front and feet to head.

    axis: direction of the slices: sagittal, coronal or axial. slices: [first, last] of each volume, or None for all;
    every `step`-th of these is used. window: the two percentiles of a volume's values that map to 0 and 255, computed
    over values above the minimum, because most of a scan is air.
    """

    root: str
    axis: Annotated[str, check.words(*AXES)]
    slices: Sequence[int] | None
    step: check.PositiveInt
    window: Sequence[float]

    def __post_init__(self) -> None:
        check.fields(self, "data.source.")
        if self.slices is not None and (len(self.slices) != 2 or not 0 <= self.slices[0] <= self.slices[1]):
            check.fail("data.source.slices", list(self.slices), "[first, last] with 0 <= first <= last, or null")
        low, high = self.window if len(self.window) == 2 else (1, 0)
        if not 0 <= low < high <= 100:
            check.fail("data.source.window", list(self.window), "[low, high], percentiles with 0 <= low < high <= 100")

    def open(self) -> "NiftiSlices":
        root = Path(self.root)
        paths = sorted(path for pattern in ("*.nii", "*.nii.gz") for path in root.rglob(pattern))
        if not paths:
            check.fail("data.source.root", str(root), "a folder with volumes, *.nii or *.nii.gz")
        places = [(path, number) for path in paths for number in self.numbers(path)]
        return NiftiSlices(places, AXES.index(self.axis), tuple(self.window))

    def numbers(self, path: Path) -> range:
        """Numbers of the selected slices of a volume."""
        depth = canonical_shape(path)[AXES.index(self.axis)]
        first, last = self.slices or (0, depth - 1)
        if last >= depth:
            at_most = f"at most {depth - 1}: {path} has {depth} {self.axis} slices"
            check.fail("data.source.slices", [first, last], at_most)
        return range(first, last + 1, self.step)


class NiftiSlices:
    """Each slice is an image. A process caches the volumes that it read last."""

    class_names: Sequence[str] = ()

    def __init__(self, places: list[tuple[Path, int]], axis: int, window: tuple[float, ...]) -> None:
        self.places, self.axis, self.window = places, axis, window
        self.labels: Tensor = torch.full((len(places),), -1)

    def __len__(self) -> int:
        return len(self.places)

    def image(self, index: int) -> np.ndarray:
        path, number = self.places[index]
        return slice_upright(windowed_volume(path, self.window), self.axis, number)[:, :, None]

    def name(self, index: int) -> str:
        path, number = self.places[index]
        return f"{path}, slice {number}"

    def fingerprint(self) -> str:
        files = [f"{path.name} {path.stat().st_size}" for path in sorted({path for path, _ in self.places})]
        return sha256_of_parts([*files, repr(self.places), repr(self.window)])


def slice_upright(volume: np.ndarray, axis: int, number: int) -> np.ndarray:
    """A slice, `[H, W]`, with the head or the front at the top."""
    return np.ascontiguousarray(np.rot90(np.moveaxis(volume, axis, 0)[number]))


def nibabel() -> Any:
    try:
        import nibabel as module
    except ModuleNotFoundError:
        raise ValueError("data=nifti needs nibabel, which is not installed: pip install ddpm[nifti]") from None
    return module


def load_volume(path: Path) -> Any:
    """Open a volume and check its header. Raises UnusableImage."""
    try:
        volume = nibabel().load(path)
    except Exception as error:  # any error of a damaged header
        if isinstance(error, ValueError) and "nibabel" in str(error):
            raise
        raise UnusableImage(f"{path} is not a NIfTI volume, or its header is damaged ({error})") from None
    if len(volume.shape) != 3:
        raise UnusableImage(f"{path} has {len(volume.shape)} dimensions, but a volume has 3; split it first")
    if (dtype := volume.get_data_dtype()).kind not in "iuf":
        raise UnusableImage(f"{path} has voxels of type {dtype}, but they must be real numbers; convert it first")
    if not abs(np.linalg.det(volume.affine[:3, :3])) > 0:
        raise UnusableImage(f"{path} has no orientation: its affine is singular")
    return volume


def canonical_shape(path: Path) -> tuple[int, ...]:
    volume = load_volume(path)
    order = nibabel().orientations.io_orientation(volume.affine)[:, 0]  # of the canonical axes, for each of the file's
    return tuple(volume.shape[axis] for axis in np.argsort(order))


def canonical(path: Path) -> np.ndarray:
    """The volume, float64 `[X, Y, Z]`, from left to right, back to front and feet to head; NaN becomes 0."""
    volume = load_volume(path)
    try:
        if path.suffix == ".gz":
            read_through(path)
        values = nibabel().as_closest_canonical(volume).get_fdata()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UnusableImage(f"{path} is damaged ({error})") from None
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def read_through(path: Path) -> None:
    """Read a file to its end, so that the checksum there is verified; nibabel does not do this."""
    with gzip.open(path) as file:
        while file.read(2**20):
            pass


@lru_cache(maxsize=4)
def windowed_volume(path: Path, window: tuple[float, ...]) -> np.ndarray:
    """uint8 `[X, Y, Z]`."""
    values = canonical(path)
    inside = values[values > values.min()]
    low, high = np.percentile(inside, window) if inside.size else (values.min(), values.min() + 1)
    if low == high:
        return np.where(values >= high, 255, 0).astype(np.uint8)
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
