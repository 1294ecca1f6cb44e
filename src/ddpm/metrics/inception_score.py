"""Inception score: how confident a classifier is for each image, and how diverse its classes are.

Salimans et al. 2016, section 4: exp E KL(p(y|x) || p(y)), mean and standard deviation over ten parts.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

from ddpm.base import check
from ddpm.metrics.fid import multinomial_weights
from ddpm.metrics.score import Estimate, FeatureSet, Score

NUM_PARTS = 10
SHUFFLE_SEED = 2020  # torch-fidelity's default


@dataclass(frozen=True)
class InceptionScore(Score):
    """`is` and, as in publications, `is_std`, both by torch-fidelity.

    The logits are in the order of the image numbers, so batches and ranks do not change the value. torchmetrics instead
    shuffles by the global generator, splits 33 images into 9 parts, and divides the variance by n - 1 (published: n).
    is_std is the spread over ten parts of n/10 images, and not the error of `is`. That error is the standard deviation
    over num_resamples bootstrap resamples within each part.
    """

    num_resamples: check.NumResamples = 50
    values = ("is", "is_std")
    layer = "logits"
    needs_real = False
    rows_of_real = False
    min_images = NUM_PARTS

    def __call__(self, real: FeatureSet | None, generated: FeatureSet) -> dict[str, Estimate]:
        logits = generated.rows.cpu()
        score = isc_features_to_metric(logits, NUM_PARTS, True, SHUFFLE_SEED)
        error = float(self.resampled(logits).std()) if self.num_resamples else None
        return {"is": Estimate(score[KEY_METRIC_ISC_MEAN], error), "is_std": Estimate(score[KEY_METRIC_ISC_STD])}

    def resampled(self, logits: Tensor) -> Tensor:
        """Scores `[R]`: the mean over parts of exp(mean of sum p log p - sum q log q), where q is the mean of p."""
        order = torch.from_numpy(np.random.RandomState(SHUFFLE_SEED).permutation(len(logits)))
        scores = []
        ends = [len(order) * k // NUM_PARTS for k in range(NUM_PARTS + 1)]  # torch-fidelity's
        for part in (order[first:last] for first, last in itertools.pairwise(ends)):
            log_p = logits[part].double().log_softmax(1)
            p = log_p.exp()
            weights = multinomial_weights(self.num_resamples, len(part), seed=int(part[0])) / len(part)
            q = weights @ p
            scores.append((weights @ (p * log_p).sum(1) - torch.xlogy(q, q).sum(1)).exp())
        return torch.stack(scores).mean(0)

    def caveat(self, num_real: int, num_generated: int) -> str | None:
        if num_generated < 10_000:
            return (
                f"IS of {num_generated} generated images: under 10,000 its ten parts are small and it is biased "
                "downwards. Compare it only with values of the same n"
            )
        return None

    def describe(self) -> str:
        return f"InceptionScore(num_parts={NUM_PARTS})"
