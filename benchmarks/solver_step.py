"""A solver's step without the network, beside diffusers' scheduler: batch 16 of 32 x 32 x 3, in the middle of a run.

From the network's eps to the next sample, with the memory that earlier steps left; no clipping on either side. A step
of Heun is both of its halves; sde_dpm_solver draws keyed noise by the compiled kernel. "of theirs" is the ratio of the
medians of interleaved rounds.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.interleaved import measure
from ddpm.base.rng import Rng
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.objective import Eps
from ddpm.diffusion.samplers.base import Sampler, State
from ddpm.diffusion.samplers.dpm_solver import DPMSolver, DPMSolver3M, SDEDPMSolver
from ddpm.diffusion.samplers.edm import Heun
from ddpm.diffusion.samplers.pndm import PNDM
from ddpm.diffusion.samplers.timestep_spacing import uniform
from ddpm.diffusion.samplers.unipc import UniPC
from ddpm.diffusion.schedules.betas import linear

SHAPE = (16, 3, 32, 32)
STEPS = 20


def rows(rounds: int) -> list[dict[str, Any]]:
    from diffusers import (
        DPMSolverMultistepScheduler,
        HeunDiscreteScheduler,
        PNDMScheduler,
        UniPCMultistepScheduler,
    )

    output, ids, rng = torch.randn(SHAPE), torch.arange(SHAPE[0]), Rng(0, "sample", compiled=True)
    schedule = linear(1000, 1e-4, 0.02, rescale=True)
    process = GaussianDiffusion(schedule)
    denoiser = NetworkDenoiser(lambda x, time: output, Eps(schedule))

    def ours(sampler: Sampler) -> Callable[[], State]:
        """The sixth step, again and again: a step changes nothing but what it returns."""
        states = sampler.trajectory(denoiser, torch.randn(SHAPE), rng, ids)
        state = [next(states) for _ in range(5)][-1]
        s = sampler.times(process.T)[6]
        return lambda: sampler.step(denoiser, state, s, {}, rng.at(s, ids))

    def theirs(scheduler: Any, calls: int = 1) -> Callable[[], None]:
        """The same, with the scheduler's own count put back before each."""
        scheduler.set_timesteps(STEPS)
        x = torch.randn(SHAPE)
        for t in scheduler.timesteps[: 12 * calls]:
            x = scheduler.step(output, t, x).prev_sample
        index, start = scheduler.step_index if hasattr(scheduler, "step_index") else None, x
        times = scheduler.timesteps[12 * calls : 13 * calls]

        def again() -> None:
            if index is not None:
                scheduler._step_index = index
            x = start
            for t in times:
                x = scheduler.step(output, t, x).prev_sample

        return again

    pairs = {
        "dpm_solver": (
            ours(DPMSolver(process, uniform, STEPS)),
            theirs(DPMSolverMultistepScheduler(1000, 1e-4, 0.02, thresholding=False)),
        ),
        "dpm_solver_3m": (
            ours(DPMSolver3M(process, uniform, STEPS)),
            theirs(DPMSolverMultistepScheduler(1000, 1e-4, 0.02, solver_order=3)),
        ),
        "sde_dpm_solver": (
            ours(SDEDPMSolver(process, uniform, STEPS)),
            theirs(DPMSolverMultistepScheduler(1000, 1e-4, 0.02, algorithm_type="sde-dpmsolver++")),
        ),
        "unipc": (ours(UniPC(process, uniform, STEPS, 2)), theirs(UniPCMultistepScheduler(1000, 1e-4, 0.02))),
        "heun": (
            ours(Heun(process, uniform, STEPS, 0.0, 0.0, math.inf, 1.0)),
            theirs(HeunDiscreteScheduler(1000, 1e-4, 0.02), calls=2),
        ),
        "pndm": (ours(PNDM(process, uniform, STEPS)), theirs(PNDMScheduler(1000, 1e-4, 0.02, skip_prk_steps=True))),
    }
    contenders = {f"{name} {who}": pair[k] for name, pair in pairs.items() for k, who in enumerate(("ours", "theirs"))}
    with torch.no_grad():
        found = measure(contenders, rounds, warmup=20)
    return [
        {
            "sampler": name,
            "microseconds": f"{1e6 * found[f'{name} ours'].seconds:.0f}",
            "diffusers": f"{1e6 * found[f'{name} theirs'].seconds:.0f}",
            "of theirs": f"{found[f'{name} ours'].seconds / found[f'{name} theirs'].seconds:.2f}",
        }
        for name in pairs
    ]
