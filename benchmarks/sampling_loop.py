"""The whole sampling loop of the MNIST demo's network, eager and with network and noise compiled (compile=true).

DDIM in 20 steps, batch 16 of 28 x 28; the compiled network is warmed up before. Both draw the same samples to rounding.
"""

import copy
from typing import Any

import torch

from benchmarks.interleaved import measure
from ddpm.base.rng import Rng
from ddpm.diffusion.denoiser import NetworkDenoiser, StaticThresholding
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.objective import V
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.samplers.timestep_spacing import uniform
from ddpm.diffusion.schedules.curves import cosine
from ddpm.networks.unet import UNet


def rows(rounds: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    schedule = cosine(1000, 0.008, 0.999)
    network = UNet(1, 32, [1, 2], 1, num_groups=8, patch_size=2).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)  # some weights are zero at first, which is no work
    compiled = copy.deepcopy(network)
    compiled.compile()
    sampler, ids = DDIM(GaussianDiffusion(schedule), uniform, 20, 0.0), torch.arange(16)

    def draw(net: torch.nn.Module, rng: Rng) -> torch.Tensor:
        return sampler.sample(StaticThresholding(NetworkDenoiser(net, V(schedule))), (1, 28, 28), rng, ids)

    eager_rng, compiled_rng = Rng(0, "sample"), Rng(0, "sample", compiled=True)
    with torch.no_grad():
        torch.testing.assert_close(draw(compiled, compiled_rng), draw(network, eager_rng), rtol=1e-3, atol=1e-3)
        contenders = {
            "eager": lambda: draw(network, eager_rng),
            "compiled": lambda: draw(compiled, compiled_rng),
        }
        found = measure(contenders, rounds, warmup=2)
    eager = found["eager"].seconds
    return [
        {"loop": name, "ms": f"{1e3 * t.seconds:.0f}", "images/s": f"{16 / t.seconds:.1f}"}
        | {"speed against eager": f"{eager / t.seconds:.2f}"}
        for name, t in found.items()
    ]
