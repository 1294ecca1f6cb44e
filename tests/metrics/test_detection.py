"""Areas under curves and overlaps: scikit-learn, slow loops, and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import label
from sklearn.metrics import average_precision_score, jaccard_score, precision_score, recall_score, roc_auc_score

from ddpm.base.rng import Rng
from ddpm.metrics.detection import (
    NUM_BINS,
    OF_PIXELS,
    aupro,
    auroc,
    average_precision,
    best_dice,
    confusion,
    count_pixels,
    image_scores,
    overlaps,
    region_shares,
)

NOISE = Rng(0, "test").at(0, torch.arange(60)).normal("noise", (20, 24)).double()


def boxes():
    """Every second image has a region of 20 pixels, every fourth a second one of 4 that touches nothing."""
    masks = torch.zeros(60, 20, 24, dtype=torch.bool)
    masks[::2, 5:10, 8:12] = True
    masks[::4, 15:17, 20:22] = True
    return masks


def scored(maps, masks, num_bins=None):
    shares, regions = region_shares(masks)
    return count_pixels(maps.flatten(1), masks.flatten(1), shares.flatten(1), regions, num_bins)


def all_images(counts, num=60):
    return counts.sum(torch.ones(1, num, dtype=torch.float64))


MAPS = ((NOISE + 1.2 * boxes()) * 10).round() / 10  # with many equal scores


def test_areas_are_those_of_scikit_learn_with_equal_scores_too():
    counts, y, scores = scored(MAPS, boxes()), boxes().flatten().numpy(), MAPS.flatten().numpy()
    assert auroc(counts).item() == pytest.approx(roc_auc_score(y, scores), abs=1e-12)
    assert average_precision(counts).item() == pytest.approx(average_precision_score(y, scores), abs=1e-12)


def test_aupro_is_the_mean_overlap_integrated_threshold_by_threshold():
    masks, maps, points = boxes().numpy(), MAPS.numpy(), [(0.0, 0.0)]
    regions = [(i, named == r) for i, mask in enumerate(masks) for named, n in [label(mask)] for r in range(1, n + 1)]
    for threshold in np.unique(maps)[::-1]:
        said = maps >= threshold
        points.append(
            ((said & ~masks).sum() / (~masks).sum(), np.mean([said[i][region].mean() for i, region in regions]))
        )
    x, y = np.array(points).T
    x, y = np.append(x[x < 0.3], 0.3), np.append(y[x < 0.3], np.interp(0.3, x, y))
    expected = ((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / 0.3
    assert aupro(scored(MAPS, boxes())).item() == pytest.approx(expected, abs=1e-12)


def test_best_dice_is_the_largest_of_all_thresholds():
    masks, maps = boxes().numpy(), MAPS.numpy()
    expected = max(
        2 * (masks & (maps >= each)).sum() / (masks.sum() + (maps >= each).sum()) for each in np.unique(maps)
    )
    assert best_dice(scored(MAPS, boxes())).item() == pytest.approx(expected, abs=1e-12)


def test_shifted_gaussians_have_their_closed_form():
    """AUROC = Phi(d / sqrt 2). Of 660 pixels against 28,140: a standard error of 0.01."""
    maps = NOISE + 1.2 * boxes()
    expected = 0.5 * (1 + math.erf(1.2 / 2))
    assert auroc(scored(maps, boxes())).item() == pytest.approx(expected, abs=0.02)


def test_a_perfect_a_random_and_an_inverted_detector():
    masks = boxes()
    perfect, inverted = scored(masks.double(), masks), scored(-masks.double(), masks)
    assert [of(perfect).item() for of in OF_PIXELS.values()] == pytest.approx([1, 1, 1, 1])
    assert auroc(inverted).item() == pytest.approx(0)
    assert aupro(inverted).item() == pytest.approx(0)
    same = scored(torch.zeros(masks.shape), masks)
    assert auroc(same).item() == pytest.approx(0.5)
    assert average_precision(same).item() == pytest.approx(masks.double().mean().item())
    assert aupro(same).item() == pytest.approx(0.15)  # a straight line to 0.3


def test_small_regions_count_as_much_as_large_ones_and_corners_connect():
    masks = torch.zeros(1, 6, 6, dtype=torch.bool)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 5, 5] = True
    shares, regions = region_shares(masks)
    assert regions.tolist() == [2]
    assert shares[0, 0, 0] == shares[0, 1, 1] == 0.5
    assert shares[0, 5, 5] == 1
    assert shares.sum() == 2


def test_bins_of_resamples_cost_less_than_the_stated_error():
    maps = NOISE + 1.2 * boxes()
    exact, binned = scored(maps, boxes()), all_images(scored(maps, boxes(), NUM_BINS))
    for of in (auroc, aupro, best_dice):
        assert of(binned).item() == pytest.approx(of(exact).item(), abs=1e-3)
    assert average_precision(binned).item() == pytest.approx(average_precision(exact).item(), rel=0.03)


def test_a_resample_is_the_set_with_images_repeated():
    rows = torch.tensor([0, 0, 3, 8, 8, 8, 21])
    weights = torch.bincount(rows, minlength=60).double()[None]
    found = scored(MAPS, boxes(), NUM_BINS).sum(weights)
    y, scores = boxes()[rows].flatten().numpy(), MAPS[rows].flatten().numpy()
    assert auroc(found).item() == pytest.approx(roc_auc_score(y, scores), abs=1e-3)


def test_the_spread_over_resamples_is_that_over_new_images():
    """AUROC of 15 images' worth of scores, 200 times anew; against the bootstrap's standard error."""
    rng, masks = Rng(1, "test"), boxes()[:16]
    sets = rng.at(0, torch.arange(200)).normal("maps", (16, 20, 24)).double()
    strength = rng.at(1, torch.arange(200)).normal("strength", (16, 1, 1)).double()  # of each image's own
    maps = sets + (1 + strength) * masks
    spread = torch.stack([auroc(scored(each, masks)) for each in maps]).std()
    drawn = torch.randint(16, (400, 16), generator=torch.Generator().manual_seed(0))
    weights = torch.zeros(400, 16, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(400, 16).double())
    errors = [auroc(scored(each, masks, NUM_BINS).sum(weights)).std() for each in maps[:20]]
    assert torch.stack(errors).mean().item() == pytest.approx(spread.item(), rel=0.25)


def test_overlaps_at_a_threshold_are_those_of_scikit_learn_by_their_own_names():
    cells = confusion(MAPS, boxes(), 0.55).sum(0)
    y, said = boxes().flatten().numpy(), (MAPS > 0.55).flatten().numpy()
    found = {name: value.item() for name, value in overlaps(cells).items()}
    assert cells.sum().item() == y.size
    assert found["sensitivity"] == pytest.approx(recall_score(y, said))
    assert found["precision"] == pytest.approx(precision_score(y, said))
    assert found["specificity"] == pytest.approx(recall_score(~y, ~said))
    assert found["iou"] == pytest.approx(jaccard_score(y, said))
    assert found["dice"] == pytest.approx(2 * found["iou"] / (1 + found["iou"]))


def test_scores_of_images():
    maps = torch.zeros(2, 10, 20)
    maps[1, 3, 4], maps[1, 5, 5] = 4.0, 2.0
    assert image_scores(maps, "max").tolist() == [0, 4]
    assert image_scores(maps, "top").tolist() == [0, 3]  # of 200 pixels the highest two
    assert image_scores(maps, "mean")[1].item() == pytest.approx(6 / 200)
    with pytest.raises(ValueError, match="image_score must be one of max, mean, top"):
        image_scores(maps, "median")
