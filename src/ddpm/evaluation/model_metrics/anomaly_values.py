"""Values of anomaly maps with bootstrap intervals over the images, and a table and a picture of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import torch
from torch import Tensor

from ddpm.base import check
from ddpm.data.anomalies.base import GOOD, AnomalySet
from ddpm.evaluation.table import titled_table
from ddpm.metrics.detection import (
    AREAS,
    NUM_BINS,
    OF_PIXELS,
    Counts,
    auroc,
    confusion,
    count_pixels,
    dice_of_all,
    image_scores,
    overlaps,
    region_shares,
)
from ddpm.metrics.score import Estimate
from ddpm.tasks.sheet import sheet

PRINTED = ("auroc_pixel", "aupro", "ap_pixel", "dice", "iou", "sensitivity", "specificity", "auroc_image")
WITH_INTERVAL = ("auroc_pixel", "aupro", "auroc_image")


class Value(NamedTuple):
    """low, high: limits of the middle 95 % of the resamples."""

    estimate: Estimate
    low: float
    high: float


Rows = Mapping[str, Mapping[str, Value]]


class MapScorer:
    """Measures maps of one set of images. All maps use the same resamples, so that they can be compared."""

    def __init__(
        self, found: AnomalySet, image_score: str, threshold: float | None, num_bootstrap: int, seed: int
    ) -> None:
        if threshold is None and found.anomalous.sum() < 2:
            check.fail("metric.anomaly.threshold", None, "a number where a single image is anomalous")
        self.found, self.image_score, self.threshold = found, image_score, threshold
        self.chosen_on, self.measured_on = halves(found.kinds)
        shares, self.regions = region_shares(found.masks)
        self.shares = shares.flatten(1)
        generator = torch.Generator().manual_seed(seed)
        num = len(found)
        drawn = torch.randint(num, (num_bootstrap, num), generator=generator)
        drawn = drawn[found.anomalous[drawn].any(1) & ~found.anomalous[drawn].all(1)]  # both kinds are needed
        self.weights = torch.zeros(len(drawn), num, dtype=torch.float64)
        self.weights.scatter_add_(1, drawn, torch.ones(drawn.shape, dtype=torch.float64))

    def values(self, maps: Tensor) -> dict[str, Value]:
        """Values of maps `[N, H, W]` by name: of pixels, then of images, then overlaps at the threshold."""
        suffixed = {name: name if name in ("aupro", "dice_best") else f"{name}_pixel" for name in OF_PIXELS}
        exact, resampled = self.count(maps, None), self.count(maps, NUM_BINS).sum(self.weights)
        found = {suffixed[name]: with_interval(of(exact), of(resampled)) for name, of in OF_PIXELS.items()}
        each = image_scores(maps, self.image_score)[:, None]
        of_images = each, self.found.anomalous[:, None], torch.zeros(len(maps), 1), self.regions
        exact, resampled = count_pixels(*of_images, None), count_pixels(*of_images, len(maps)).sum(self.weights)
        found |= {f"{name}_image": with_interval(of(exact), of(resampled)) for name, of in AREAS.items()}
        judged = torch.arange(len(maps)) if self.threshold is not None else self.measured_on
        cells = confusion(maps[judged], self.found.masks[judged], self.threshold_of(maps))
        resampled_overlaps = overlaps(self.weights[:, judged] @ cells)
        for name, value in overlaps(cells.sum(0)).items():
            found[name] = with_interval(value, resampled_overlaps[name])
        return found

    def threshold_of(self, maps: Tensor) -> float:
        """The configured threshold, or that with the best Dice on half of the images."""
        if self.threshold is not None:
            return self.threshold
        levels = maps[self.chosen_on].flatten().unique().flip(0)
        best = int(dice_of_all(self.count(maps, None, self.chosen_on)).argmax())
        return float(levels[best + 1 : best + 2].mean()) if best + 1 < len(levels) else -1.0

    def by_kind(self, maps: Tensor) -> dict[str, Value]:
        """AUROC of the pixels of images with one kind of anomaly."""
        found = {}
        for kind in sorted(set(self.found.kinds) - {GOOD}):
            rows = torch.tensor([each == kind for each in self.found.kinds])
            weights = self.weights[:, rows]
            resampled = self.count(maps, NUM_BINS, rows).sum(weights[weights.sum(1) > 0])
            found[kind] = with_interval(auroc(self.count(maps, None, rows)), auroc(resampled))
        return found

    def count(self, maps: Tensor, num_bins: int | None, rows: Tensor | slice = slice(None)) -> Counts:
        scores, masks = maps[rows].flatten(1), self.found.masks[rows].flatten(1)
        return count_pixels(scores, masks, self.shares[rows], self.regions[rows], num_bins)


def halves(kinds: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Rows of every second image of each kind, and of the others."""
    in_turn = sorted(range(len(kinds)), key=lambda row: (kinds[row] == GOOD, kinds[row], row))
    return torch.tensor(sorted(in_turn[::2])), torch.tensor(sorted(in_turn[1::2]))


def with_interval(value: Tensor, resampled: Tensor) -> Value:
    known = resampled[resampled.isfinite()]
    if len(known) < 2:
        return Value(Estimate(float(value)), float("nan"), float("nan"))
    low, high = known.quantile(torch.tensor([0.025, 0.975], dtype=known.dtype)).tolist()
    return Value(Estimate(float(value), float(known.std())), low, high)


def anomaly_table(rows: Rows) -> list[str]:
    cells = {
        title: {name: format_value(values[name], name in WITH_INTERVAL) for name in PRINTED}
        for title, values in rows.items()
    }
    return titled_table(cells).splitlines()


def format_value(value: Value, interval: bool) -> str:
    return f"{value.estimate.value:.3f}" + (f" [{value.low:.3f}, {value.high:.3f}]" if interval else "")


def anomaly_rows(rows: Rows) -> list[dict[str, Any]]:
    """A row for each map; each value is followed by its 95 % interval."""
    table = []
    for title, values in rows.items():
        table.append({"map": title})
        for name, (estimate, low, high) in values.items():
            table[-1] |= {name: estimate.value, f"{name}_low": low, f"{name}_high": high}
    return table


def anomaly_picture(found: AnomalySet, first: Tensor, places: Tensor, maps: Tensor, limit: float, title: str) -> Tensor:
    """uint8 `[H, W, 3]`. first: `[K, 3, C, H, W]`, the images of the columns input, noised and restored."""
    largest = float(maps[places].flatten().quantile(0.995))
    cells = []
    for (image, noised, restored), place in zip(first, places.tolist(), strict=True):
        found_here, truth = ((each[None].float() * 2 - 1) for each in (maps[place] > limit, found.masks[place]))
        coloured = colour_map(maps[place] / largest)
        cells.append([image, noised.clamp(-1, 1), restored.clamp(-1, 1), coloured, found_here, truth])
    rows = [f"{found.kinds[place]}\nimage {int(found.numbers[place])}" for place in places.tolist()]
    columns = ["input", "noised", "restored", "map", "found", "truth"]
    return sheet(cells, rows, columns, f"{title}; maps from 0, black, to {largest:.2g}; found: above {limit:.2g}")


def colour_map(values: Tensor) -> Tensor:
    """`[3, H, W]` in [-1, 1] from values `[H, W]`, from black at 0 to bright yellow at 1."""
    colours = np.asarray(matplotlib.colormaps["inferno"](values.clamp(0, 1).numpy()))[..., :3]
    return torch.from_numpy(colours).permute(2, 0, 1).float() * 2 - 1
