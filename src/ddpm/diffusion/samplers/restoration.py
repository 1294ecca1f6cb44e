"""What can be made of a degraded image: one guess, a sampler's run, or either algorithm of Cold Diffusion."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.base.rng import Rng
from ddpm.base.types import Cond
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.samplers.base import Sampler
from ddpm.diffusion.samplers.cold import Cold, Naive

DEGRADED, ONE_STEP, ALGORITHM_1, ALGORITHM_2 = WAYS = ("degraded", "one step", "algorithm 1", "algorithm 2")


class Restored(NamedTuple):
    """`[B, C, H, W]` each: x_t, and the x_0 that the model made of it."""

    degraded: Tensor
    restored: Tensor


@torch.no_grad()
def restorations(
    denoiser: Denoiser, sampler: Sampler, x0: Tensor, t: int, rng: Rng, ids: Tensor, cond: Cond
) -> dict[str, Tensor]:
    """Images `[B, C, H, W]` by their way: x_t = D(x0, z, t), R(x_t, t), and x_0 after either algorithm from x_t.

    As in Bansal et al. 2022. sampler: whose process, times and pace the algorithms take, whichever rule it has. ids:
    int64 `[B]`; z depends on them alone and is the same for all.
    """
    x_t = degraded(sampler, x0, t, rng, ids)
    outputs = {DEGRADED: x_t, ONE_STEP: denoiser(x_t, t, cond).x0}
    for way, rule in ((ALGORITHM_1, Naive), (ALGORITHM_2, Cold)):
        outputs[way] = cleaned(
            denoiser, rule(sampler.process, sampler.timestep_spacing, sampler.steps), x_t, t, rng, ids, cond
        )
    return outputs


@torch.no_grad()
def restore_repeatedly(
    denoiser: Denoiser, sampler: Sampler, x0: Tensor, t: int, rng: Rng, ids: Tensor, cond: Cond, repeats: int
) -> Iterator[Restored]:
    """So many times, each with noise of its own, which depends on ids int64 `[B]`, t and the repeat alone.

    Where an image changed, there may be an anomaly (AnoDDPM, Wyatt et al. 2022, section 3).
    """
    for repeat in range(repeats):
        own = Rng(rng.seed, f"{rng.scope}, anomaly at {t}, repeat {repeat}")
        x_t = degraded(sampler, x0, t, own, ids)
        yield Restored(x_t, cleaned(denoiser, sampler, x_t, t, own, ids, cond))


def degraded(sampler: Sampler, x0: Tensor, t: int, rng: Rng, ids: Tensor) -> Tensor:
    """x_t."""
    process = sampler.process
    return process.apply(x0, process.draw(x0, rng.at(process.T, ids)), t)


def cleaned(denoiser: Denoiser, sampler: Sampler, x_t: Tensor, t: int, rng: Rng, ids: Tensor, cond: Cond) -> Tensor:
    """x_0 at the end of the sampler's run from x_t."""
    return deque(sampler.trajectory(denoiser, x_t, rng, ids, cond, start=t), maxlen=1).pop().x_t


def squared_error_map(images: Tensor, restored: Tensor) -> Tensor:
    """`[B, H, W]`, the mean over the channels of (images - made)^2, of pixels in [-1, 1]."""
    return (images - restored).square().mean(1)
