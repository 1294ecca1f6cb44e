"""A training step of the CIFAR-10 network of Ho et al. 2020 in this project, diffusers and denoising-diffusion-pytorch.

Forward, loss, backward, optimizer and averaged weights; batch size 8, 32 x 32 x 3. Each program uses its own loss,
optimizer and averages. "diffusers again" repeats the first row and shows the accuracy of the comparison.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from benchmarks.bare_step import bare_step
from benchmarks.interleaved import measure
from ddpm.base.types import Batch
from ddpm.config import build
from ddpm.runs import devices

CONF = Path(__file__).resolve().parents[1] / "conf"
BATCH = 8


def ours(bf16: bool) -> Callable[[], None]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", ["experiment=ddpm_cifar10", "data=digits", "data.channels=3", "data.size=32"])
    module = build.module(config).train()
    optimizer, schedule = module.own_turn.make_optimizer(module.network.parameters())
    ids = torch.arange(BATCH)
    batch = Batch(image=torch.rand(BATCH, 3, 32, 32) * 2 - 1, label=ids, index=ids, position=ids)
    step = 0

    def run() -> None:
        nonlocal step
        step += 1
        bare_step(module, optimizer, schedule, batch, step, bf16)

    return run


def diffusers() -> Callable[[], None]:
    """UNet2DModel with the settings of google/ddpm-cifar10-32 and the paper's dropout, trained as in its example."""
    from diffusers import DDPMScheduler, UNet2DModel
    from diffusers.training_utils import EMAModel

    network = UNet2DModel(
        sample_size=32, block_out_channels=(128, 256, 256, 256), layers_per_block=2, dropout=0.1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, attention_head_dim=None, norm_eps=1e-6,
    )  # fmt: skip
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    average = EMAModel(network.parameters(), decay=0.9999)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-4)
    images = torch.rand(BATCH, 3, 32, 32) * 2 - 1

    def run() -> None:
        noise, t = torch.randn_like(images), torch.randint(0, 1000, (BATCH,))
        output = network(scheduler.add_noise(images, noise, t), t).sample
        torch.nn.functional.mse_loss(output, noise).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(network.parameters())

    return run


def lucidrains() -> Callable[[], None]:
    """The nearest network of denoising-diffusion-pytorch; it has 28.5 M parameters and does 28% fewer FLOPs."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    network = Unet(dim=128, dim_mults=(1, 2, 2, 2), dropout=0.1, full_attn=(False, True, False, False), flash_attn=True)
    process = GaussianDiffusion(network, image_size=32, objective="pred_noise", beta_schedule="linear")
    average = EMA(process, beta=0.9999, update_every=1, update_after_step=0)
    optimizer = torch.optim.Adam(process.parameters(), lr=2e-4, betas=(0.9, 0.99))
    images = torch.rand(BATCH, 3, 32, 32)

    def run() -> None:
        process(images).backward()
        torch.nn.utils.clip_grad_norm_(process.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()

    return run


def rows(rounds: int) -> list[dict[str, Any]]:
    contenders = {"diffusers": diffusers(), "diffusers again": diffusers(), "denoising-diffusion-pytorch": lucidrains()}
    contenders |= {"this project": ours(bf16=False)}
    left_out = []
    try:
        devices.refuse_slow_bf16()
        contenders |= {"this project, bf16": ours(bf16=True)}
    except ValueError as reason:
        left_out = [{"program": "this project, bf16", "ms a step": f"left out: {str(reason).partition(';')[0]}"}]
    found = measure(contenders, rounds)
    timed = [
        {"program": name, "ms a step": f"{1000 * t.seconds:.0f}", "img/s": f"{BATCH / t.seconds:.2f}"}
        | {"speed against diffusers": f"{t.speed:.2f}"}
        for name, t in found.items()
    ]
    return timed + left_out
