"""Restoration of degraded images: in one step, by a sampler, or by either algorithm of Cold Diffusion."""

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
    """x_t and the x_0 that is restored from it, `[B, C, H, W]` each."""

    degraded: Tensor
    restored: Tensor


@torch.no_grad()
def restorations(
    denoiser: Denoiser, sampler: Sampler, x0: Tensor, t: int, rng: Rng, ids: Tensor, cond: Cond
) -> dict[str, Tensor]:
    """Images `[B, C, H, W]` for each of WAYS: x_t = D(x0, z, t), R(x_t, t), and x_0 of either algorithm from x_t.

    As in Bansal et al. 2022. sampler: its process, timestep spacing and steps are used, but not its step rule. ids:
    int64 `[B]`; z depends only on them, and is the same for all.
    """
    x_t = degraded(sampler, x0, t, rng, ids)
    outputs = {DEGRADED: x_t, ONE_STEP: denoiser(x_t, t, cond).x0}
    for way, rule in ((ALGORITHM_1, Naive), (ALGORITHM_2, Cold)):
        by_rule = rule(sampler.process, sampler.timestep_spacing, sampler.steps)
        outputs[way] = cleaned(denoiser, by_rule, x_t, t, rng, ids, cond)
    return outputs


@torch.no_grad()
def restore_repeatedly(
    denoiser: Denoiser, sampler: Sampler, x0: Tensor, t: int, rng: Rng, ids: Tensor, cond: Cond, repeats: int
) -> Iterator[Restored]:
    """Degrades to t and restores `repeats` times; the noise depends only on ids int64 `[B]`, t and the repeat.

    Differences from x0 indicate anomalies (AnoDDPM, Wyatt et al. 2022, section 3).
    """
    for repeat in range(repeats):
        own = Rng(rng.seed, f"{rng.scope}, anomaly at {t}, repeat {repeat}")
        x_t = degraded(sampler, x0, t, own, ids)
        yield Restored(x_t, cleaned(denoiser, sampler, x_t, t, own, ids, cond))


def degraded(sampler: Sampler, x0: Tensor, t: int, rng: Rng, ids: Tensor) -> Tensor:
    """x_t from x0, with the z of the samples `ids`."""
    process = sampler.process
    return process.apply(x0, process.draw(x0, rng.at(process.T, ids)), t)


def cleaned(denoiser: Denoiser, sampler: Sampler, x_t: Tensor, t: int, rng: Rng, ids: Tensor, cond: Cond) -> Tensor:
    """x_0 at the end of the sampler's trajectory from x_t."""
    return deque(sampler.trajectory(denoiser, x_t, rng, ids, cond, start=t), maxlen=1).pop().x_t


def squared_error_map(images: Tensor, restored: Tensor) -> Tensor:
    """The mean over the channels of (images - restored)^2, `[B, H, W]`, for pixels in [-1, 1]."""
    return (images - restored).square().mean(1)
