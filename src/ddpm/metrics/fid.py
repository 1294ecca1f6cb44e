"""Frechet distance between Gaussians fitted to two sets of features: FID, if the features are Inception's.

Heusel et al. 2017, eq. 6: |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)), in float64. Neither torchmetrics nor
torch-fidelity resamples, or uses a mean and covariance from a file; the tests compare this code with both.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from scipy.linalg.blas import ssyrk
from torch import Tensor

from ddpm.base import check
from ddpm.metrics.score import Estimate, FeatureSet, Moments, Score

CHUNK = 4096
SEED = 2020


def frechet_distance(a: Moments, b: Moments) -> float:
    """Symmetric, and 0 up to rounding for equal moments, even without full rank.

    Tr (S1 S2)^(1/2) = Tr (R^T S2 R)^(1/2) with R R^T = S1, a symmetric matrix: 1.7 s for 2048 features.
    """
    root_a = root(a.covariance)
    spectrum = torch.linalg.eigvalsh(root_a.T @ b.covariance @ root_a)
    return distance_of_parts(a, b.mean, torch.trace(b.covariance), spectrum)


def root(covariance: Tensor) -> Tensor:
    """R `[d, d]` with R R^T = covariance."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * without_noise(values).sqrt()


def without_noise(values: Tensor) -> Tensor:
    """Eigenvalues of a covariance, with those at rounding level set to 0, because their roots would add up."""
    noise = values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    return torch.where(values > noise, values, 0)


def distance_of_parts(a: Moments, mean: Tensor, trace: Tensor, spectrum: Tensor) -> float:
    """mean: of the other set. trace: of its covariance S2. spectrum: eigenvalues of R^T S2 R."""
    overlap = without_noise(spectrum).sqrt().sum()
    return float((a.mean - mean).square().sum() + torch.trace(a.covariance) + trace - 2 * overlap)


@dataclass(frozen=True)
class FrechetDistance(Score):
    """`fid` of the layer "pooled", or `sfid` of the layer "spatial" (Nash et al. 2021), which keeps positions.

    num_resamples: bootstrap resamples of the generated images, whose standard deviation is the error; 0: no error, and
    memory that does not grow with the number of images. The reference is not resampled.
    """

    layer: str = "pooled"
    name: str = "fid"
    num_resamples: check.NumResamples = 50
    moments = True
    rows_of_real = False

    @property
    def values(self) -> tuple[str]:
        return (self.name,)

    @property
    def rows_of_generated(self) -> bool:
        return self.num_resamples > 0

    def __call__(self, real: FeatureSet, generated: FeatureSet) -> dict[str, Estimate]:
        value = frechet_distance(real.moments, generated.moments)
        if not self.num_resamples:
            return {self.name: Estimate(value)}
        weights = multinomial_weights(self.num_resamples, generated.num_images)
        return {self.name: Estimate(value, float(resampled_distances(real.moments, generated.rows, weights).std()))}

    def caveat(self, num_real: int, num_generated: int) -> str | None:
        if 0 < min(num_generated, num_real or num_generated) < 10_000:
            remedy = "; metric=fid_infinity estimates it without the bias of few generated images"
            return (
                f"{self.name.upper()} of {num_generated} generated against {num_real} real images: under 10,000 it is "
                f"biased upwards. Compare it only with values of the same n{remedy if self.name == 'fid' else ''}"
            )
        return None

    def describe(self) -> str:
        return f"FrechetDistance(layer={self.layer})"


@dataclass(frozen=True)
class FrechetInfinity(Score):
    """`fid_inf`: the distance for infinitely many generated images (Chong and Forsyth 2020).

    The bias falls as 1/n, so distances of subsets of the generated images are extrapolated to 1/n = 0, by least squares
    over num_points sizes from the share `smallest` to all. The reference is not resampled. The value is noisier than
    FID; its error is the standard deviation over num_resamples bootstrap resamples.
    """

    layer: str = "pooled"
    name: str = "fid_inf"
    num_points: Annotated[int, check.integers(2)] = 8
    smallest: Annotated[float, check.numbers(0.01, 0.9)] = 0.2
    num_resamples: check.NonNegativeInt = 10
    moments = True
    rows_of_real = False
    min_images = 20

    @property
    def values(self) -> tuple[str]:
        return (self.name,)

    def __call__(self, real: FeatureSet, generated: FeatureSet) -> dict[str, Estimate]:
        num = generated.num_images
        parts = np.linspace(self.smallest, 1, self.num_points)
        sizes = torch.from_numpy((parts * num).round()).long().tolist()
        value = extrapolate(real.moments, generated.rows, torch.ones(1, num), sizes)[0]
        if self.num_resamples < 2:
            return {self.name: Estimate(value)}
        weights = multinomial_weights(self.num_resamples, num)
        again = extrapolate(real.moments, generated.rows, weights, sizes)
        return {self.name: Estimate(value, float(np.std(again, ddof=1)))}

    def describe(self) -> str:
        return f"FrechetInfinity(layer={self.layer}, num_points={self.num_points}, smallest={self.smallest:g})"


def extrapolate(real: Moments, rows: Tensor, weights: Tensor, sizes: list[int]) -> list[float]:
    """For each row of `weights` `[R, N]`, the value at 1/n = 0 of a line through its distances at `sizes`."""
    found = []
    for number, weight in enumerate(weights):
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(SEED + number))
        masks = torch.stack([weight * (order < size) for size in sizes])
        distances = resampled_distances(real, rows, masks)
        found.append(float(np.polyfit(1 / masks.sum(1).numpy(), distances.numpy(), 1)[1]))
    return found


def multinomial_weights(num_resamples: int, num_images: int, seed: int = SEED) -> Tensor:
    """Counts of each image in each bootstrap resample of N images, float64 `[R, N]`; the same for equal arguments."""
    make = np.random.Generator(np.random.PCG64(seed))
    even = np.full(num_images, 1 / num_images)
    return torch.from_numpy(make.multinomial(num_images, even, size=num_resamples)).double()


def resampled_distances(real: Moments, rows: Tensor, weights: Tensor) -> Tensor:
    """The distance of each resample to `real`, float64 `[R]`. rows: float32 `[N, d]`. weights: float64 `[R, N]`.

    The rows are transformed once by R, so that R^T S R is their covariance. A resample then needs one product of its
    distinct rows, of which BLAS computes half, and eigenvalues: 1.3 s on two cores for 50,000 images and 2048 features.
    """
    weights = weights.to(rows.device, torch.float64)
    nums = weights.sum(1)
    root_real = root(real.covariance)
    center = rows.mean(0, dtype=torch.float64)
    means = torch.zeros(len(weights), rows.shape[1], dtype=torch.float64, device=rows.device)
    squares = torch.zeros_like(nums)
    turned = torch.empty_like(rows)
    for first in range(0, len(rows), CHUNK // 4):
        here = slice(first, first + CHUNK // 4)
        some = rows[here].double() - center
        turned[here] = (some @ root_real).float()
        means += weights[:, here] @ some
        squares += weights[:, here] @ some.square().sum(1)
    means /= nums[:, None]
    distances = torch.zeros(len(weights), dtype=torch.float64)
    for number, (weight, num, mean) in enumerate(zip(weights, nums, means, strict=True)):
        trace = (squares[number] - num * mean.square().sum()) / (num - 1)
        overlap = scatter_spectrum(turned, weight, mean @ root_real) / (num - 1)
        distances[number] = distance_of_parts(real, center + mean, trace, overlap)
    return distances


def scatter_spectrum(rows: Tensor, weight: Tensor, mean: Tensor) -> Tensor:
    """Eigenvalues, except zeros, of the sum over rows of weight times (row - mean)(row - mean)^T.

    rows: float32 `[N, d]`. mean: float64 `[d]`, of the weighted rows. For fewer rows than features, their Gram matrix
    is used, which has the same eigenvalues. For many rows, float32 products of a few thousand are added in float64,
    which takes half the time, and changes a distance by 2e-6 and its spread by a relative 1e-5.
    """
    chosen = weight.nonzero()[:, 0]
    d = rows.shape[1]
    if len(chosen) < 2 * d:
        scaled = (rows[chosen].double() - mean) * weight[chosen, None].sqrt()
        return torch.linalg.eigvalsh(scaled @ scaled.T if len(chosen) < d else scaled.T @ scaled)
    total = torch.zeros(d, d, dtype=torch.float64, device=rows.device)
    for some in chosen.split(CHUNK):
        scaled = rows[some].mul_(weight[some, None].sqrt().float())
        if rows.device.type == "cpu":
            total += torch.from_numpy(ssyrk(1.0, scaled.numpy().T, lower=1).T)  # the upper half only
        else:
            total += scaled.T @ scaled
    return torch.linalg.eigvalsh(total.addr_(mean, mean, alpha=-float(weight.sum())), UPLO="U")
