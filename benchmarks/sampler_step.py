"""One sampler step without the network: batch size 16, 32 x 32 x 3, from the network's output to the next sample.

The step computes x0 from the output, clips it and computes the next sample. The ancestral step includes its noise,
which is keyed by the sample number.
"""

from typing import Any

import torch

from benchmarks.interleaved import measure
from ddpm.base.rng import Rng
from ddpm.diffusion.denoiser import NetworkDenoiser, StaticThresholding
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.objective import Eps
from ddpm.diffusion.samplers.ancestral import Ancestral
from ddpm.diffusion.samplers.base import State
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.samplers.timestep_spacing import uniform
from ddpm.diffusion.schedules.betas import linear
from ddpm.diffusion.variance import FixedSmall

SHAPE = (16, 3, 32, 32)


def rows(rounds: int) -> list[dict[str, Any]]:
    from diffusers import DDIMScheduler, DDPMScheduler

    output, x, ids = torch.randn(SHAPE), torch.randn(SHAPE), torch.arange(SHAPE[0])
    schedule = linear(1000, 1e-4, 0.02, rescale=True)
    process = GaussianDiffusion(schedule)
    denoiser = StaticThresholding(NetworkDenoiser(lambda x, time: output, Eps(schedule)))
    ancestral = Ancestral(process, uniform, None, FixedSmall())
    ddim = DDIM(process, uniform, 50, 0.0)
    eager, compiled = Rng(0, "sample"), Rng(0, "sample", compiled=True)
    ddpm_scheduler, ddim_scheduler = DDPMScheduler(), DDIMScheduler()
    ddpm_scheduler.set_timesteps(1000)
    ddim_scheduler.set_timesteps(50)

    def drawn(rng: Rng) -> torch.Tensor:
        return rng.at(500, ids).normal("step", SHAPE[1:])

    contenders = {
        "diffusers DDPMScheduler.step": lambda: ddpm_scheduler.step(output, 500, x),
        "ancestral, compiled noise": lambda: ancestral.step(denoiser, State(501, x), 500, {}, compiled.at(500, ids)),
        "ancestral, eager noise": lambda: ancestral.step(denoiser, State(501, x), 500, {}, eager.at(500, ids)),
        "diffusers DDIMScheduler.step": lambda: ddim_scheduler.step(output, 500, x),
        "DDIM": lambda: ddim.step(denoiser, State(520, x), 500, {}, eager.at(500, ids)),
        "keyed noise alone, compiled": lambda: drawn(compiled),
        "keyed noise alone, eager": lambda: drawn(eager),
        "torch.randn alone": lambda: torch.randn(SHAPE),
    }
    with torch.no_grad():
        found = measure(contenders, rounds, warmup=20)
    ddpm, other = found["diffusers DDPMScheduler.step"].seconds, found["diffusers DDIMScheduler.step"].seconds
    return [
        {"step": name, "microseconds": f"{1e6 * t.seconds:.0f}"}
        | {"of DDPMScheduler.step": f"{t.seconds / ddpm:.2f}", "of DDIMScheduler.step": f"{t.seconds / other:.2f}"}
        for name, t in found.items()
    ]
