"""What degrading a batch costs beside a training step of the 35.7 M U-Net: 32 images of 3 x 32 x 32, on one thread.

A step is the forward and the backward pass of 4 images, times 8; the optimizer, which is the same for all, is left out.
A process draws its state and degrades every image to a time of its own. Simplex noise is that of process=gaussian.
"""

from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

from benchmarks.interleaved import measure
from ddpm.base.rng import Rng
from ddpm.diffusion.degradations.blur import Blur
from ddpm.diffusion.degradations.fade import Decolor, Fade
from ddpm.diffusion.degradations.mask import Mask
from ddpm.diffusion.degradations.pixelate import Pixelate
from ddpm.diffusion.degradations.snow import Snow
from ddpm.diffusion.degradations.snowfall import Snowfall
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.noises.base import Offset
from ddpm.diffusion.noises.pyramid import Pyramid
from ddpm.diffusion.noises.simplex import Simplex
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.schedules.base import Steps
from ddpm.diffusion.schedules.curves import cosine

CONF = Path(__file__).resolve().parents[1] / "conf"
BATCH, PART = 32, 4
COSINE = cosine(1000, 0.008, 0.999)
NOT_FITTED: dict[str, Any] = {"fitted": None, "symmetry_noise": 0.0}
NOT_ROUNDED: dict[str, Any] = {"levels": None, "rounding": "nearest"}
PROCESSES: dict[str, ForwardProcess] = {
    "gaussian": GaussianDiffusion(COSINE),
    "gaussian, noise=simplex": GaussianDiffusion(COSINE, Simplex(6, 0.8, 8, True)),
    "gaussian, noise=pyramid": GaussianDiffusion(COSINE, Pyramid(0.8, True)),
    "gaussian, noise=offset": GaussianDiffusion(COSINE, Offset(0.1, True)),
    "blur": Blur(
        schedule=Steps(50), kernel=11, sigma=0.35, growth="linear", rate=0.01, padding="reflect", to_mean=False,
        **NOT_ROUNDED, **NOT_FITTED,
    ),
    "mask": Mask(schedule=Steps(50), sigma_step=0.1, initial=1, center="random", shift=0, value=0.0, **NOT_ROUNDED),
    "pixelate": Pixelate(schedule=Steps(3), mode="area", cumulative=False, **NOT_FITTED),
    "snow": Snow(schedule=Steps(200), severity=3, length=None),
    "snowfall": Snowfall(schedule=Steps(200), level=3, whiten=False),
    "decolor": Decolor(schedule=Steps(20)),
    "fade": Fade(schedule=Steps(20), colour=-1.0, **NOT_FITTED),
}  # fmt: skip


def network() -> torch.nn.Module:
    """That of model=ddpm_cifar10."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=["experiment=ddpm_cifar10"])
    return instantiate(config.model)


def rows(rounds: int) -> list[dict[str, Any]]:
    unet, x0 = network(), torch.rand(BATCH, 3, 32, 32) * 2 - 1
    time, draws = torch.randint(0, 1000, (PART,)), Rng(0, "train").at(1, torch.arange(BATCH))

    def part_of_step() -> None:
        unet(x0[:PART], time).square().mean().backward()
        unet.zero_grad()

    def degraded(process: ForwardProcess) -> Tensor:
        t = torch.arange(BATCH) * process.T // BATCH + 1
        return process.apply(x0, process.draw(x0, draws), t)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = measure({"step": part_of_step, **{n: lambda p=p: degraded(p) for n, p in PROCESSES.items()}}, rounds)
    torch.set_num_threads(threads)
    step = found["step"].seconds * BATCH / PART
    return [
        {"process": name, "ms": f"{found[name].seconds * 1e3:.2f}", "of a step": f"{found[name].seconds / step:.3%}"}
        for name in PROCESSES
    ]


if __name__ == "__main__":
    for row in rows(10):
        print(row)
