"""Exact likelihood by the probability-flow ODE (Song et al. 2021, "Score-Based ...", section 4.3 and appendix D.2).

In y = x_t / alpha_t and r = sigma_t / alpha_t, the flow is dy/dr = eps, and log p changes by the divergence of eps. The
divergence falls as 1 / r where little signal is left, so it is integrated in log r. We use Heun's method over integer
times, for which any network is trained.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ddpm.base.types import Cond
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.gaussian import GaussianDiffusion


def log_likelihood(
    process: GaussianDiffusion,
    denoiser: Denoiser,
    y: Tensor,
    times: Sequence[int],
    probes: Tensor,
    cond: Cond | None = None,
) -> Tensor:
    """log p of y = x_t / alpha_t at t = times[0], in nats, `[B]`.

    y: `[B, C, H, W]`, about x0 for small t. times: rising, from about 1 to T, where some signal must be left.
    probes: `[K, B, C, H, W]` of -1 and 1, to estimate the divergence (Hutchinson 1989). The estimate is unbiased, and
    exact if the probes are the d unit vectors times sqrt(d).
    """
    schedule = process.schedule
    ratio = {t: math.exp(-schedule.half_log_snr(t)) for t in times}
    gathered = torch.zeros(len(y), dtype=torch.float64, device=y.device)
    eps, divergence = slope(process, denoiser, y, times[0], probes, cond)
    for t, u in itertools.pairwise(times):
        h = ratio[u] - ratio[t]
        eps_u, divergence_u = slope(process, denoiser, y + h * eps, u, probes, cond)
        y = y + h * (eps + eps_u) / 2
        mean = (ratio[t] * divergence + ratio[u] * divergence_u).double() / 2
        gathered += math.log(ratio[u] / ratio[t]) * mean
        eps, divergence = slope(process, denoiser, y, u, probes, cond)
    d, alpha = y[0].numel(), schedule.alpha(times[-1])
    x_T = (y * alpha).double().flatten(1)
    prior = -(x_T.square().sum(1) + d * math.log(2 * math.pi)) / 2
    return prior + d * math.log(alpha) + gathered


def slope(
    process: GaussianDiffusion, denoiser: Denoiser, y: Tensor, t: int, probes: Tensor, cond: Cond | None
) -> tuple[Tensor, Tensor]:
    """eps at y `[B, C, H, W]`, and its divergence with respect to y, `[B]`."""
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        x_t = y * process.schedule.alpha(t)
        eps = process.recover_noise(x_t, denoiser(x_t, t, cond or {}).x0, t)
        total = torch.zeros(len(y), device=y.device, dtype=y.dtype)
        for k, probe in enumerate(probes):
            keep = k + 1 < len(probes)
            (pulled,) = torch.autograd.grad(eps, y, probe, retain_graph=keep)
            total = total + (pulled * probe).flatten(1).sum(1)
    return eps.detach(), total / len(probes)
