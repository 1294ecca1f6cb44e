"""Whether generated images are copies of the training images."""

from dataclasses import dataclass

from ddpm.base import check
from ddpm.metrics.extractors.preprocess import PIXELS
from ddpm.metrics.neighbours import k_nearest
from ddpm.metrics.score import Estimate, FeatureSet, Score


@dataclass(frozen=True)
class Memorization(Score):
    """`memorized` and `nearest_ratio`, with the suffix `_pixels` for pixels. Use split=train.

    memorized: share of generated images whose distance to the nearest real image is less than `ratio` times that to the
    second nearest (Yoon et al. 2023: 1/3). nearest_ratio: median distance of generated images to the nearest real one,
    divided by that of real images to the nearest other one: about 1 for new samples, 0 for copies.
    """

    layer: str = PIXELS
    ratio: check.Share = 1 / 3
    min_images = 3

    def __call__(self, real: FeatureSet, generated: FeatureSet) -> dict[str, Estimate]:
        distances, _ = k_nearest(generated.rows, real.rows, 2)
        usual, _ = k_nearest(real.rows, real.rows, 1, leave_out_self=True)
        copies = distances[:, 0] < self.ratio * distances[:, 1]
        of_median = float(usual.median())
        if of_median == 0:
            raise ValueError("nearest_ratio has no scale: more than half of the real images are duplicates")
        ratio = Estimate(float(distances[:, 0].median()) / of_median)
        return dict(zip(self.values, (Estimate.of_mean(copies), ratio), strict=True))

    @property
    def values(self) -> tuple[str, str]:
        ending = f"_{PIXELS}" if self.layer == PIXELS else ""
        return f"memorized{ending}", f"nearest_ratio{ending}"

    def describe(self) -> str:
        return f"Memorization(layer={self.layer}, ratio={self.ratio:.4g})"
