"""DDIM inversion: from an image to the x_T that leads to it (Song et al. 2021, sections 4.3, 5.4)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ddpm.base.rng import Rng
from ddpm.base.types import Cond, Prediction, Time
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.samplers.base import Sampler


@torch.no_grad()
def invert(
    process: GaussianDiffusion, denoiser: Denoiser, x0: Tensor, times: Sequence[int], cond: Cond | None = None
) -> Tensor:
    """x at times[-1], from x0 `[B, C, H, W]`. times: rising from 0.

    Each step uses eps at its start (Euler's method). A DDIM step back starts at the other end, so reconstruction has an
    error of first order in the step size. The clean image is passed to the denoiser as x_1, because networks have no
    time 0.
    """
    x = x0
    for s, t in pairwise(times):
        seen_at = max(s, 1)
        guess = denoiser(x, seen_at, cond or {}).x0
        eps = process.recover_noise(x, guess, seen_at)
        x = process.apply(guess if s > 0 else x0, eps, t)
    return x


def draws_noise(sampler: Sampler) -> bool:
    """Whether one x_T leads to different samples, tested on one pixel with a denoiser that always returns 0."""

    def zero(x_t: Tensor, t: Time, cond: Cond) -> Prediction:
        return Prediction(torch.zeros_like(x_t), torch.zeros_like(x_t))

    x, ids = torch.ones(1, 1, 1, 1), torch.zeros(1, dtype=torch.int64)
    runs = (sampler.trajectory(zero, x, Rng(seed, "probe"), ids) for seed in (0, 1))
    return any(not torch.equal(one.x_t, other.x_t) for one, other in zip(*runs, strict=True))
