"""Features that were drawn, for scores without a network."""

import torch

from ddpm.metrics.score import FeatureSet, Moments


def normal(n, d, seed, mean=0.0, spread=1.0):
    return mean + spread * torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def gaussian_features(mean, covariance, n, seed):
    """`[n, d]` whose sample mean and unbiased covariance are exactly the given ones."""
    x = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov().reshape(len(mean), -1)), x.T, upper=False).T
    return white @ torch.linalg.cholesky(covariance).T + mean


def moments(rows):
    exact = rows.double()
    return Moments(len(rows), exact.mean(0), exact.T.cov().reshape(rows.shape[1], -1))


def features(rows, labels=None):
    return FeatureSet(len(rows), moments(rows), rows.float(), torch.arange(len(rows)), labels)


def classes(*rows):
    """Of class 0, 1, ... the rows that are given."""
    labels = [torch.full((len(some),), label) for label, some in enumerate(rows)]
    return features(torch.cat(rows), torch.cat(labels))
