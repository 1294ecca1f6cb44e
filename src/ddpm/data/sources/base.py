"""What a source of images is: a description that costs nothing, and the images it opens."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpm.base.untrusted import json_data

EXTENSIONS = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")


class Images(Protocol):
    """Numbered images. Travels into worker processes, so open files are opened per process."""

    labels: Tensor  # int64 [N], -1 where there is none
    class_names: Sequence[str]  # empty where they are not known

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image | np.ndarray:
        """Decoded, or opened and decoded on first use; an array is uint8 `[H, W]` or `[H, W, 3]`."""
        ...

    def name(self, index: int) -> str:
        """What an error message calls it."""
        ...

    def fingerprint(self) -> str:
        """Changes when the data do, found without decoding: a hash of names and sizes, or better."""
        ...


class Source(Protocol):
    def open(self) -> Images:
        """Raises ValueError, with a remedy, where there is nothing to open."""
        ...


@runtime_checkable
class Downloadable(Protocol):
    def download(self) -> None:
        """Fetch the files unless they are there. Called on one process a machine."""
        ...


@dataclass(frozen=True)
class ArrayImages:
    """Images that are arrays already. pixels: uint8 `[N, H, W]` or `[N, H, W, 3]`; labels: int64 `[N]`."""

    title: str
    pixels: np.ndarray
    labels: Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def image(self, index: int) -> np.ndarray:
        pixels = self.pixels[index]
        return pixels if pixels.ndim == 3 else pixels[:, :, None]

    def name(self, index: int) -> str:
        return f"{self.title} image {index}"

    def fingerprint(self) -> str:
        return sha256_of_parts([np.ascontiguousarray(self.pixels).tobytes()])


def sha256_of_parts(parts: Iterable[bytes | str]) -> str:
    """sha256 of the parts one after another, as hexadecimal digits."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part if isinstance(part, bytes) else part.encode() + b"\n")
    return total.hexdigest()


def is_image_name(name: str) -> bool:
    """By extension; hidden files and folders (`._a.png`, `__MACOSX`) are not images."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in EXTENSIONS and not hidden


def edm_labels(text: str, names: Sequence[str], where: str) -> Tensor:
    """int64 `[N]` for `names` from an EDM `dataset.json`, {"labels": [[name, class], ...]} or {"labels": null}."""
    table = json_data(text, where)
    try:
        entries = table.get("labels")
        classes = None if entries is None else {name.replace("\\", "/"): label for name, label in entries}
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f'{where} must be a JSON object {{"labels": [[name, class], ...]}}: {error}') from error
    if classes is None:
        return torch.full((len(names),), -1)
    missing = [name for name in names if name not in classes]
    if missing:
        raise ValueError(f"{where} has no label for {len(missing)} of {len(names)} images, the first is {missing[0]}")
    found = [classes[name] for name in names]
    wrong = [label for label in found if type(label) is not int or not -1 <= label < 2**31]
    if wrong:
        raise ValueError(f"{where}: a label must be the number of a class (-1: none), got {wrong[0]!r}")
    return torch.tensor(found, dtype=torch.int64)
