"""What can be made of a degraded image: one guess, or Algorithm 1 or 2 of Cold Diffusion (Bansal et al. 2022)."""

from collections import deque

import torch
from torch import Tensor

from ddpm.base.rng import Rng
from ddpm.base.types import Cond
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.samplers.base import Sampler
from ddpm.diffusion.samplers.cold import Cold
from ddpm.diffusion.samplers.naive import Naive

DEGRADED, ONE_STEP, ALGORITHM_1, ALGORITHM_2 = WAYS = ("degraded", "one step", "algorithm 1", "algorithm 2")


@torch.no_grad()
def restorations(
    denoiser: Denoiser, sampler: Sampler, x0: Tensor, t: int, rng: Rng, ids: Tensor, cond: Cond
) -> dict[str, Tensor]:
    """Images `[B, C, H, W]` by their way: x_t = D(x0, z, t), R(x_t, t), and x_0 after either algorithm from x_t.

    sampler: whose process, times and pace the algorithms take, whichever rule it has. ids: int64 `[B]`; z depends on
    them alone and is the same for all.
    """
    process = sampler.process
    x_t = process.apply(x0, process.draw(x0, rng.at(process.T, ids)), t)
    outputs = {DEGRADED: x_t, ONE_STEP: denoiser(x_t, t, cond).x0}
    for way, rule in ((ALGORITHM_1, Naive), (ALGORITHM_2, Cold)):
        states = rule(process, sampler.timestep_spacing, sampler.steps).trajectory(
            denoiser, x_t, rng, ids, cond, start=t
        )
        outputs[way] = deque(states, maxlen=1).pop().x_t
    return outputs
