"""One training step of this project without Lightning: what both training benchmarks time."""

import torch
from torch.optim.lr_scheduler import LambdaLR

from ddpm.base.types import Batch
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.training.module import DiffusionModule


def bare_step(
    module: DiffusionModule, optimizer: torch.optim.Optimizer, schedule: LambdaLR, batch: Batch, epoch: int, bf16: bool
) -> None:
    """Loss, gradients, clipping, optimizer and averages, as DiffusionModule does them under a Trainer on the CPU."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        draws = module.train_rng.at(epoch, batch["index"], batch["position"])
        loss = module.loss(
            NetworkDenoiser(module.network, module.model.objective), batch["image"], {}, draws
        ).total.mean()
    loss.backward()
    module.configure_gradient_clipping(optimizer, 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    module.averages.update(module.network)
