"""Detection metrics of anomaly scores for pixels and for images: areas under curves, and overlaps.

A curve is stored as counts in bins of decreasing score. Values use one bin for each distinct score. Bootstrap errors
use NUM_BINS bins for each image, so that a resample is a weighted sum of the images' counts.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import label
from torch import Tensor

from ddpm.base import check

LARGEST_FPR = 0.3
"""The false positive rate up to which AUPRO integrates (Bergmann et al. 2021, section 5.1)."""
NUM_BINS = 1024
"""Bins of a resample, with equal counts in all; they change an area under a curve by less than 1e-3."""


@dataclass(frozen=True)
class Counts:
    """Counts in K bins of decreasing score, `[..., K]`. positive, negative: anomalous and normal pixels. overlap: share
    of each region, summed over regions. regions: the number of regions, `[...]`.
    """

    positive: Tensor
    negative: Tensor
    overlap: Tensor
    regions: Tensor

    def sum(self, weights: Tensor) -> "Counts":
        """Sums over images `[N, K]` with weights `[R, N]`."""
        return Counts(weights @ self.positive, weights @ self.negative, weights @ self.overlap, weights @ self.regions)


def rates(counts: Counts) -> tuple[Tensor, Tensor]:
    """True and false positive rate `[..., K + 1]` for thresholds that fall from above all scores to below them."""
    return tuple(
        torch.nn.functional.pad(each.cumsum(-1) / each.sum(-1, keepdim=True), (1, 0))
        for each in (counts.positive, counts.negative)
    )


def auroc(counts: Counts) -> Tensor:
    """Area under the ROC curve: how often an anomalous one of a pair has the higher score; ties count half."""
    true, false = rates(counts)
    return torch.trapezoid(true, false)


def average_precision(counts: Counts) -> Tensor:
    """Average precision: the sum over thresholds of precision times the increase in recall."""
    found, false = counts.positive.cumsum(-1), counts.negative.cumsum(-1)
    precision = found / (found + false).clamp(min=1e-300)
    return (precision * counts.positive).sum(-1) / counts.positive.sum(-1)


def aupro(counts: Counts) -> Tensor:
    """Area under the per-region overlap, with equal weights for small and large regions, over false positive rates up
    to 0.3, divided by 0.3 (Bergmann et al. 2021, section 5.1)."""
    _, false = rates(counts)
    overlap = torch.nn.functional.pad(counts.overlap.cumsum(-1), (1, 0)) / counts.regions[..., None]
    width = false.diff(dim=-1)
    taken = (LARGEST_FPR - false[..., :-1]).clamp(min=0).minimum(width)  # the last step is taken in part
    middle = overlap[..., :-1] + overlap.diff(dim=-1) * torch.where(width > 0, taken / width.clamp(min=1e-300), 0) / 2
    return (taken * middle).sum(-1) / LARGEST_FPR


def dice_of_all(counts: Counts) -> Tensor:
    """The Dice coefficient 2 TP / (2 TP + FP + FN) for each threshold, `[..., K]`."""
    found, false = counts.positive.cumsum(-1), counts.negative.cumsum(-1)
    return 2 * found / (found + false + counts.positive.sum(-1, keepdim=True)).clamp(min=1e-300)


def best_dice(counts: Counts) -> Tensor:
    """The largest Dice coefficient over thresholds, chosen on the same pixels on which it is measured."""
    return dice_of_all(counts).amax(-1)


AREAS: dict[str, Callable[[Counts], Tensor]] = {"auroc": auroc, "ap": average_precision}
OF_PIXELS = {**AREAS, "aupro": aupro, "dice_best": best_dice}


def confusion(maps: Tensor, masks: Tensor, threshold: float) -> Tensor:
    """float64 `[N, 4]`: true positive, false positive, false negative and true negative pixels of each image."""
    flagged = (maps > threshold).flatten(1)
    true = masks.flatten(1)
    cells = [flagged & true, flagged & ~true, ~flagged & true, ~flagged & ~true]
    return torch.stack([cell.sum(1) for cell in cells], dim=1).double()


def overlaps(cells: Tensor) -> dict[str, Tensor]:
    """Dice, IoU and rates from `[..., 4]` of `confusion`.

    AnoDDPM's code has the names of precision and sensitivity exchanged, and its false positive rate is FN / (FN + TN).
    We use the standard names.
    """
    tp, fp, fn, tn = cells.unbind(-1)
    return {
        "dice": 2 * tp / (2 * tp + fp + fn),
        "iou": tp / (tp + fp + fn),
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "precision": tp / (tp + fp),
    }


def count_pixels(scores: Tensor, anomalous: Tensor, shares: Tensor, regions: Tensor, num_bins: int | None) -> Counts:
    """Counts of each image `[N, K]`, or, for num_bins=None, of all images together `[K]` with a bin for each score.

    scores, anomalous, shares: `[N, P]`; shares: of a pixel in its region, 0 outside. regions: number `[N]`.
    """
    num = len(scores)
    if num_bins is None:
        values, bins = scores.flatten().unique(return_inverse=True)
        place, size = len(values) - 1 - bins, (len(values),)
    else:
        ordered = scores.flatten().sort(descending=True).values
        edges = ordered[torch.linspace(0, len(ordered) - 1, num_bins + 1).long()[1:-1]].flip(0).contiguous()
        bins = len(edges) - torch.bucketize(scores, edges)
        place, size = (bins + torch.arange(num)[:, None] * num_bins).flatten(), (num, num_bins)
    total = int(np.prod(size))
    positive, negative, overlap = (
        torch.bincount(place, weights=each.double().flatten(), minlength=total).view(size)
        for each in (anomalous, ~anomalous, shares)
    )
    return Counts(positive, negative, overlap, regions.double() if num_bins else regions.double().sum())


def region_shares(masks: Tensor) -> tuple[Tensor, Tensor]:
    """1 / size of each pixel's 8-connected region, float64 `[N, H, W]`, and the number of regions `[N]`."""
    shares, numbers = np.zeros(tuple(masks.shape)), []
    for row, mask in enumerate(masks.numpy()):
        named, number = label(mask, structure=np.ones((3, 3)))
        sizes = np.bincount(named.ravel())
        shares[row] = np.where(mask, 1 / np.maximum(sizes, 1)[named], 0)
        numbers.append(number)
    return torch.from_numpy(shares), torch.tensor(numbers)


def image_scores(maps: Tensor, kind: str) -> Tensor:
    """`[N]` from maps `[N, H, W]`: their max, their mean, or the mean of their highest hundredth (top)."""
    flat = maps.flatten(1)
    check.one_of("image_score", kind, ("max", "mean", "top"))
    if kind == "top":
        return flat.topk(max(1, flat.shape[1] // 100), dim=1).values.mean(1)
    return flat.amax(1) if kind == "max" else flat.mean(1)
