"""A schedule that is trained with the denoiser: gamma(t) = -log SNR as a monotone network of t in [0, 1].

Kingma et al. 2021, "Variational Diffusion Models", sections 3.2 and 4.1 and appendix H. The bound in continuous time
depends on the two ends of gamma alone, which are parameters; between them its shape changes only the variance of the
estimate.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ddpm.base import check
from ddpm.diffusion.schedule import NoiseSchedule, checked_timesteps


class LearnedSchedule(nn.Module):
    """gamma(t) between its ends is t + sum_k w_k sigmoid(v_k t + b_k), w and v positive, brought to run from 0 to 1.

    gamma_start, gamma_end: what the ends are at first, -13.3 and 5 in the paper. num_features: 1024 there; its positive
    weights come from softplus here, in place of an absolute value. It starts out within 1% of a straight line.
    """

    def __init__(self, gamma_start: float, gamma_end: float, num_features: int) -> None:
        super().__init__()
        check.number("gamma_start", gamma_start)
        if check.number("gamma_end", gamma_end) <= gamma_start:
            check.fail("gamma_end", gamma_end, f"greater than gamma_start ({gamma_start})")
        steepness, weight = 4.0, 0.1 / check.positive_int("num_features", num_features)
        self.start = nn.Parameter(torch.tensor(float(gamma_start)))
        self.log_span = nn.Parameter(torch.tensor(math.log(gamma_end - gamma_start)))
        self.raw_steepness = nn.Parameter(torch.full((num_features,), math.log(math.expm1(steepness))))
        self.raw_weight = nn.Parameter(torch.full((num_features,), math.log(math.expm1(weight))))
        self.bias = nn.Parameter(-steepness * torch.linspace(0, 1, num_features))

    def forward(self, t: Tensor) -> Tensor:
        """gamma at t in [0, 1], `[B]`; exactly `start` at 0, and start + exp(log_span) at 1."""
        low, high = self._shape(torch.zeros_like(t)), self._shape(torch.ones_like(t))
        return self.start + self.log_span.exp() * (self._shape(t) - low) / (high - low)

    def slope(self, t: Tensor) -> Tensor:
        """d gamma / dt, `[B]`, greater than 0."""
        steepness, weight = softplus(self.raw_steepness), softplus(self.raw_weight)
        bell = torch.sigmoid(self._inner(t))
        rise = 1 + (weight * steepness * bell * (1 - bell)).sum(-1)
        span = self._shape(torch.ones_like(t)) - self._shape(torch.zeros_like(t))
        return self.log_span.exp() * rise / span

    def diffusion_loss(self, t: Tensor, eps: Tensor, output: Tensor) -> Tensor:
        """1/2 gamma'(t) |eps - output|^2 in nats, one a sample `[B]`, whose mean over uniform t is the bound's middle.

        eqs. 17 and 18, with SNR = exp(-gamma). eps, output: the noise of x_t and what the network says it is,
        `[B, C, H, W]`; t: `[B]` in [0, 1].
        """
        return self.slope(t) * (eps - output).square().flatten(1).sum(1) / 2

    def prior_loss(self, x0: Tensor) -> Tensor:
        """KL(q(x_1 | x0) || N(0, I)) in nats, one a sample `[B]`, through which the end is trained."""
        gamma = self.start + self.log_span.exp()
        alpha_bar = torch.sigmoid(-gamma)
        each = alpha_bar * (x0.square() - 1) - nn.functional.logsigmoid(gamma)
        return each.flatten(1).sum(1) / 2

    def table(self, num_timesteps: int) -> NoiseSchedule:
        """What was learned, as the schedule of every sampler here: gamma from start at t = 1 to its end at T."""
        t = torch.linspace(0, 1, checked_timesteps(num_timesteps), dtype=torch.float64, device=self.start.device)
        with torch.no_grad():
            rows = torch.sigmoid(-copy.deepcopy(self).double()(t)).cpu()
        return NoiseSchedule(torch.cat([torch.ones(1, dtype=torch.float64), rows]))

    def _inner(self, t: Tensor) -> Tensor:
        return softplus(self.raw_steepness) * t[:, None] + self.bias

    def _shape(self, t: Tensor) -> Tensor:
        return t + (softplus(self.raw_weight) * torch.sigmoid(self._inner(t))).sum(-1)
