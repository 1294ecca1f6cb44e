"""Data sets for anomaly detection: images with and without anomalies, and masks of the anomalies."""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

GOOD = "good"
"""Kind of an image without anomaly, named as its folder in MVTec AD."""


@dataclass(frozen=True)
class AnomalySet:
    """images: uint8 `[N, C, H, W]`. masks: bool `[N, H, W]`, True at anomalous pixels. kinds: kind of anomaly of each
    image, or "good". numbers: int64 `[N]`, image numbers in the source. name: name of the set.
    """

    images: Tensor
    masks: Tensor
    kinds: tuple[str, ...]
    numbers: Tensor
    name: str

    def __post_init__(self) -> None:
        num, _, *sides = self.images.shape
        if self.masks.shape != (num, *sides) or len(self.kinds) != num or self.numbers.shape != (num,):
            raise ValueError(
                f"{self.name}: {num} images of {list(self.images.shape[1:])} need as many masks of {sides}, kinds and "
                f"numbers, got {list(self.masks.shape)}, {len(self.kinds)} and {list(self.numbers.shape)}"
            )
        wrong = [i for i, kind in enumerate(self.kinds) if (kind != GOOD) != bool(self.anomalous[i])]
        if wrong:
            what = "its mask is not empty" if self.kinds[wrong[0]] == GOOD else "its mask is empty"
            raise ValueError(f"{self.name}: image {int(self.numbers[wrong[0]])} is {self.kinds[wrong[0]]}, but {what}")
        if self.anomalous.all() or not self.anomalous.any():
            which = "anomalous" if self.anomalous.all() else "healthy"
            raise ValueError(f"{self.name}: all {num} images are {which}; the evaluation needs both kinds")

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def anomalous(self) -> Tensor:
        """bool `[N]`."""
        return self.masks.flatten(1).any(1)

    @cached_property
    def digest(self) -> str:
        """sha256 of images and masks."""
        content = hashlib.sha256(str(list(self.images.shape)).encode())
        for part in (self.images, self.masks.byte()):
            content.update(part.contiguous().numpy().tobytes())
        return content.hexdigest()

    def first(self, num: int) -> "AnomalySet":
        """`num` of the images, spread evenly over all."""
        rows = torch.linspace(0, len(self) - 1, num).round().long()
        kinds = tuple(self.kinds[row] for row in rows)
        return AnomalySet(self.images[rows], self.masks[rows], kinds, self.numbers[rows], self.name)


@contextmanager
def our_fields() -> Iterator[None]:
    """Replace `data.FIELD` by `anomalies.FIELD` in the messages of ValueErrors."""
    try:
        yield
    except ValueError as error:
        raise ValueError(re.sub(r"\bdata\.(source\.|(?=crop|resize))", "anomalies.", str(error))) from None


Healthy = Callable[[], tuple[Tensor, Tensor]]
"""Returns images, uint8 `[N, C, H, W]`, that the model was not trained on, and their numbers, int64 `[N]`."""


class AnomalySource(Protocol):
    def read(self, shape: tuple[int, int, int], healthy: Healthy) -> AnomalySet:
        """Read images of this shape (C, H, W). healthy: held-out images, for sources that add synthetic anomalies."""
        ...
