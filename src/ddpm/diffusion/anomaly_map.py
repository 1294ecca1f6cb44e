"""Diffuse an image some of the way, restore it, and see where it changed (AnoDDPM, Wyatt et al. 2022, section 3)."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.base.rng import Rng
from ddpm.base.types import Cond
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.samplers.base import Sampler


class Restored(NamedTuple):
    """`[B, C, H, W]` each: x_t, and the x_0 that the model made of it."""

    degraded: Tensor
    restored: Tensor


@torch.no_grad()
def restore_repeatedly(
    denoiser: Denoiser, sampler: Sampler, x0: Tensor, t: int, rng: Rng, ids: Tensor, cond: Cond, repeats: int
) -> Iterator[Restored]:
    """So many times, each with noise of its own, which depends on ids int64 `[B]`, t and the repeat alone."""
    process = sampler.process
    for repeat in range(repeats):
        own = Rng(rng.seed, f"{rng.scope}, anomaly at {t}, repeat {repeat}")
        x_t = process.apply(x0, process.draw(x0, own.at(process.T, ids)), t)
        last = deque(sampler.trajectory(denoiser, x_t, own, ids, cond, start=t), maxlen=1).pop()
        yield Restored(x_t, last.x_t)


def squared_error_map(images: Tensor, restored: Tensor) -> Tensor:
    """`[B, H, W]`, the mean over the channels of (images - made)^2, of pixels in [-1, 1]."""
    return (images - restored).square().mean(1)
