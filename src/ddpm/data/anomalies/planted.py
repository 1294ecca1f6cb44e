"""Synthetic lesions in healthy images, with exact masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Rng
from ddpm.data.anomalies.base import GOOD, AnomalySet, Healthy
from ddpm.data.anomalies.lesions import LESIONS

ATTEMPTS = 50


@dataclass(frozen=True)
class Planted:
    """The image's number and the seed determine its lesion on every machine.

    kinds: "stroke", "blob", "texture" or "missing"; each image gets one of them. share_good: share of images without
    lesion. threshold: the mask contains pixels that changed by at least this many of 255 levels. min_area: minimum
    share of the image in the mask; a smaller lesion is drawn again.
    """

    kinds: Sequence[Annotated[str, check.words(*LESIONS)]]
    share_good: check.Share
    threshold: Annotated[int, check.integers(1, 255)]
    min_area: Annotated[float, check.numbers(0, 0.2)]
    seed: check.NonNegativeInt

    def __post_init__(self) -> None:
        check.fields(self)
        if not self.kinds:
            check.one_of("kinds", None, LESIONS)

    def read(self, shape: tuple[int, int, int], healthy: Healthy) -> AnomalySet:
        if min(shape[1:]) < 16:
            check.fail("data.size", min(shape[1:]), "at least 16 for anomalies=planted")
        before, numbers = healthy()
        rng = Rng(self.seed, "lesions")
        choice = rng.at(0, numbers)
        good = choice.uniform("good") < self.share_good
        kind = torch.where(good, -1, choice.integers("kind", len(self.kinds)))
        images = before.clone()
        for number, name in enumerate(self.kinds):
            self.plant(name, images, (kind == number).nonzero()[:, 0], numbers, rng)
        kinds = tuple(GOOD if k < 0 else self.kinds[k] for k in kind.tolist())
        return AnomalySet(images, self.changed(before, images), kinds, numbers, f"planted, seed {self.seed}")

    def plant(self, name: str, images: Tensor, rows: Tensor, numbers: Tensor, rng: Rng) -> None:
        """Add lesions to the images of these rows in place."""
        smallest = self.min_area * images[0, 0].numel()
        for attempt in range(1, ATTEMPTS + 1):
            if not len(rows):
                return
            before = images[rows]
            values = before.double() / 255
            after = LESIONS[name](values, background(values), rng.at(attempt, numbers[rows]))
            after = (after * 255).round().clamp(0, 255).byte()
            fits = self.changed(before, after).flatten(1).sum(1) >= smallest
            images[rows[fits]] = after[fits]
            rows = rows[~fits]
        which = ", ".join(map(str, numbers[rows[:5]].tolist()))
        raise ValueError(
            f"anomalies.min_area={self.min_area:g}: no lesion {name!r} of that size fits images {which} in {ATTEMPTS} "
            "attempts; decrease it or anomalies.threshold"
        )

    def changed(self, before: Tensor, after: Tensor) -> Tensor:
        """The masks, bool `[N, H, W]`."""
        return ((after.int() - before.int()).abs() >= self.threshold).any(1)


def background(images: Tensor) -> Tensor:
    """Background colour `[N, C, 1, 1]`, the median of the border pixels."""
    edge = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 1:-1, 0], images[..., 1:-1, -1]], dim=-1)
    return edge.median(-1).values[..., None, None]
