"""Frechet distance between two sets of features taken as Gaussians: FID, if the features are Inception's.

Heusel et al. 2017, eq. 6: |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)). torchmetrics keeps the moments and does the sum.
"""

from typing import Self

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from ddpm import check


class FrechetDistance:
    """FID from float64 sums: memory does not grow with the images, and ranks add up exactly.

    torchmetrics is given features instead of images, since one pass of the network serves several scores; its own
    `antialias` (on by default there, and not the published metric) is thereby out of the way.
    """

    layer = "pooled"
    needs_real = True
    min_images = 2

    def __init__(self, num_features: int) -> None:
        self.num_features = check.positive_int("num_features", num_features)
        features_as_they_are = nn.Identity()
        features_as_they_are.num_features = self.num_features
        with torch.inference_mode(False):  # or the sums could not be added to outside a caller's inference mode
            self._moments = FrechetInceptionDistance(feature=features_as_they_are, reset_real_features=False)

    def to(self, device: torch.device | str) -> Self:
        self._moments.to(device)
        return self

    def update(self, features: Tensor, ids: Tensor, real: bool) -> None:
        self._moments.update(features.double(), real=real)  # the result comes in the dtype of the features

    def compute(self) -> dict[str, float]:
        # No rows: torchmetrics wants an update on every rank, and a rank may have had no image
        self._moments.update(torch.zeros(0, self.num_features, dtype=torch.float64, device=self._moments.device), False)
        return {"fid": float(self._moments.compute())}

    def reset_fake(self) -> None:
        self._moments.reset()

    def caveat(self, num_real: int, num_generated: int) -> str | None:
        fewest = min(num_real, num_generated)
        if fewest <= self.num_features:
            return (
                f"FID of {num_generated} generated against {num_real} real images: {self.num_features} features and no "
                "more images than that give covariances without full rank. Good for trends at this same n only"
            )
        if fewest < 10_000:
            return (
                f"FID of {num_generated} generated against {num_real} real images: under 10,000 it is biased upwards. "
                "Compare it with figures of the same n only"
            )
        return None
