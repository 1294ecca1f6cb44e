"""The terms of the variational bound (Ho et al. 2020, eq. 5), for any `MarkovProcess`.

-log p(x0) <= L_T + sum over t > 1 of L_(t-1) + L_0, in nats per pixel; papers report `bits_per_dim`.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Prediction, Time
from ddpm.diffusion.distributions import Distribution, Gaussian
from ddpm.diffusion.process import MarkovProcess
from ddpm.diffusion.variance import Variance

Likelihood = Callable[[Distribution, Tensor], Tensor]
"""(distribution, x0 `[B, C, H, W]`) to nats, one a number of x0."""


def log_mass(distribution: Distribution, x0: Tensor) -> Tensor:
    """Of an x0 that has 8-bit levels or is binary."""
    return distribution.log_likelihood(x0)


def floored_log_mass(floor: float) -> Likelihood:
    """As `log_mass`, with probabilities below `floor` counted as `floor`: the code of Ho et al. 2020 and Nichol and
    Dhariwal 2021, where it is 1e-12, so that no number of x0 costs more than 39.9 bits. Its gradient is 0 there."""
    least = math.log(floor)

    def floored(distribution: Any, x0: Tensor) -> Tensor:
        with torch.no_grad():
            is_low = ~(distribution.log_likelihood(x0) >= least) & distribution.mean.isfinite()  # NaN if very far
        likely = distribution._replace(mean=torch.where(is_low, x0, distribution.mean))  # its gradient is finite
        nats = likely.log_likelihood(x0)
        return torch.where(is_low & ~nats.isnan(), least, nats)

    return floored


def likelihood_of(floor: float | None) -> Likelihood:
    """Of a clean image, with a floor of its probabilities in (0, 1), or None."""
    if floor is None:
        return log_mass
    if not 0 < check.number("floor", floor) < 1:
        check.fail("floor", floor, "null or a probability between 0 and 1, as 1e-12")
    return floored_log_mass(floor)


def log_density(distribution: Gaussian, x0: Tensor) -> Tensor:
    """Of an x0 without levels, as the latents of a first stage."""
    return distribution.log_density(x0)


def bits_per_dim(nats: Tensor) -> Tensor:
    """Nats per pixel `[B, C, H, W]` to bits per dimension `[B]`, the mean over the pixels."""
    return nats.flatten(1).mean(1) / math.log(2)


def prior_term(process: MarkovProcess, x0: Tensor) -> Tensor:
    """L_T = KL(q(x_T | x0) || p(x_T)): it depends on the schedule, not on the network."""
    return process.marginal(x0, process.T).kl(process.limit(x0))


def step_term(
    process: MarkovProcess,
    x0: Tensor,
    x_t: Tensor,
    prediction: Prediction,
    s: Time,
    t: Time,
    variance: Variance,
    likelihood: Likelihood = log_mass,
) -> Tensor:
    """KL(q(x_s | x_t, x0) || p(x_s | x_t)) for s > 0, and L_0 = -log p(x0 | x_t) for s = 0.

    x0, x_t: `[B, C, H, W]`; s, t: ints or int64 `[B]`. One sample of x_t gives an unbiased estimate.
    """
    model = process.reverse(prediction, x_t, s, t, variance)
    if isinstance(s, int):
        return process.posterior(x0, x_t, s, t).kl(model) if s > 0 else -likelihood(model, x0)
    of_step = process.posterior(x0, x_t, s, t).kl(model)
    return torch.where(s.view(-1, *[1] * (x0.ndim - 1)) > 0, of_step, -likelihood(model, x0))
