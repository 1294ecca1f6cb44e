"""Number of modes of the data that samples cover: Gaussians in the plane, or the 1,000 classes of StackedMNIST.

Metz et al. 2017, section 3.3; Lin et al. 2018 (PacGAN), section 4.
"""

import math
from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddpm.base import check
from ddpm.metrics.classes import refuse_unlabelled_real
from ddpm.metrics.score import Estimate, FeatureSet, Score

NUM_SIGMAS = 3
NUM_DIGIT_MODES = 1000
SEED = 2020


@dataclass(frozen=True)
class ModeScore(Score, ABC):
    """num_resamples: bootstrap resamples of the generated images, for the standard error; 0: no error."""

    num_resamples: check.NumResamples = 50
    remedy = "data=grid25, mixture or stacked_mnist with features=usual, or another metric"

    def estimate(self, value: Callable[[Tensor], Tensor], counts: Tensor) -> Estimate:
        """value: a function of counts int64 `[..., K]`, the number of images of each mode."""
        num, make = int(counts.sum()), np.random.Generator(np.random.PCG64(SEED))
        again = make.multinomial(num, counts.double().numpy() / num, size=self.num_resamples)
        error = float(value(torch.from_numpy(again)).double().std()) if self.num_resamples else None
        return Estimate(float(value(counts)), error)


@dataclass(frozen=True)
class PointModes(ModeScore):
    """`modes` and `within_3_sigma` of points in the plane, where each class of the real points is a mode.

    The centre of a mode is the mean of its class. All modes have the same sigma, the root mean square deviation from
    the centres along x and y. A mode is covered if it is the nearest one of at least one sample within 3 sigma. For
    Gaussian modes, a share of 1 - exp(-9 / 2) = 0.989 of the real points is within 3 sigma.
    """

    layer = "points"
    values = ("modes", "within_3_sigma")

    def refuse(self, real: FeatureSet, generated: FeatureSet) -> None:
        refuse_unlabelled_real(real, self.describe())

    def __call__(self, real: FeatureSet, generated: FeatureSet) -> dict[str, Estimate]:
        self.refuse(real, generated)
        centres, sigma = labelled_modes(real.only(real.labels >= 0))
        distances, nearest = (generated.rows.cpu().double()[:, None] - centres).norm(dim=2).min(1)
        within = distances <= NUM_SIGMAS * sigma
        outside = len(centres)  # a column for samples of no mode
        counts = torch.where(within, nearest, outside).bincount(minlength=outside + 1)
        modes = self.estimate(lambda counts: num_hit(counts[..., :outside]), counts)
        return {"modes": modes, "within_3_sigma": Estimate.of_mean(within)}

    def describe(self) -> str:
        return f"PointModes(sigmas={NUM_SIGMAS})"


@dataclass(frozen=True)
class DigitModes(ModeScore):
    """`modes` and `kl_modes` of images with three digits, which form 1,000 modes.

    kl_modes: KL(p || uniform) in nats, where p is the share of generated images in each mode. The data are uniform by
    construction. For N images from uniform modes it is about 999 / 2N, not 0.
    """

    layer = "digits"
    values = ("modes", "kl_modes")
    needs_real = False

    def __call__(self, real: FeatureSet | None, generated: FeatureSet) -> dict[str, Estimate]:
        modes = generated.rows.cpu().long() @ torch.tensor([100, 10, 1])
        counts = modes.bincount(minlength=NUM_DIGIT_MODES)
        return {"modes": self.estimate(num_hit, counts), "kl_modes": self.estimate(kl_from_uniform, counts)}

    def caveat(self, num_real: int, num_generated: int) -> str | None:
        if num_generated >= 10_000:
            return None
        reached = NUM_DIGIT_MODES * (1 - (1 - 1 / NUM_DIGIT_MODES) ** num_generated)
        return (
            f"modes of {num_generated} generated images: as many images from uniform modes cover {reached:.0f} of "
            f"{NUM_DIGIT_MODES:,}. Published values are of 26,000 images; compare only values of the same n"
        )

    def describe(self) -> str:
        return "DigitModes(kl_from=uniform)"


def labelled_modes(real: FeatureSet) -> tuple[Tensor, Tensor]:
    """Centres `[K, 2]` and the common sigma, float64 on the CPU."""
    points = real.rows.cpu().double()
    classes, mode = real.labels.cpu().unique(return_inverse=True)
    centres = torch.stack([points[mode == k].mean(0) for k in range(len(classes))])
    degrees_of_freedom = 2 * max(len(points) - len(classes), 1)
    return centres, ((points - centres[mode]).square().sum() / degrees_of_freedom).sqrt()


def num_hit(counts: Tensor) -> Tensor:
    return (counts > 0).sum(-1)


def kl_from_uniform(counts: Tensor) -> Tensor:
    """KL of the distribution of counts `[..., K]` from the uniform one, in nats."""
    shares = counts.double() / counts.sum(-1, keepdim=True)
    return math.log(counts.shape[-1]) + torch.xlogy(shares, shares).sum(-1)
