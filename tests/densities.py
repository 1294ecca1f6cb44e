"""The densities of the oracles' data at any noise, by torch's distributions: what the oracles are compared with."""

import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from ddpm.diffusion.exact.oracle import GaussianOracle


def log_density(oracle, x_t, alpha, sigma):
    """Of x_t `[B, 1, 1, d]`, in nats, `[B]`."""
    if isinstance(oracle, GaussianOracle):
        mean, covariance = (torch.tensor(each, dtype=torch.float64) for each in (oracle.mean, oracle.covariance))
        of_x_t = MultivariateNormal(alpha * mean, alpha**2 * covariance + sigma**2 * torch.eye(len(mean)).double())
    else:
        centers = torch.tensor(oracle.centers, dtype=torch.float64)
        std = (alpha**2 * oracle.std**2 + sigma**2) ** 0.5
        parts = Independent(Normal(alpha * centers, std), 1)
        of_x_t = MixtureSameFamily(Categorical(torch.ones(len(centers)).double()), parts)
    return of_x_t.log_prob(x_t.flatten(1))
