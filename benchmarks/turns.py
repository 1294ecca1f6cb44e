"""A training of two networks in turns against the passes of its networks alone, for experiment=ddgan_mnist.

"passes" runs what no program can save: the generator without gradients and the adversary forward and backward for the
adversary's turn, R1 where it is due, and both forward and backward for the generator's turn. "train.py" adds data,
noise, posteriors, optimizers, averages, logs, checkpoints and Lightning. "published program" also computes the
generator's gradients in the adversary's turn, as the code of Xiao et al. 2022 does, and throws them away. One thread.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from benchmarks.interleaved import between_ends, one_thread
from benchmarks.lightning_loop import CONF, lightning
from ddpm.config import build

STEPS = 100


def configuration(folder: str) -> DictConfig:
    GlobalHydra.instance().clear()
    words = ["experiment=ddgan_mnist", f"run_dir={folder}", "logger=csv", f"trainer.max_steps={STEPS}", "trainer=cpu"]
    words += ["~callbacks.samples", "~callbacks.denoising", f"checkpoint_every_n_steps={STEPS // 2}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", words)


def passes(config: DictConfig, wasted: bool = False) -> float:
    """Seconds for the passes of all steps, on one batch of noise. wasted: the adversary's turn trains the generator."""
    module = build.module(config).train()
    generator, adversary = module.network, module.adversary
    num = config.data.batch_size
    x, time_of = torch.randn(num, *module.model.image_shape), torch.randint(4, (num,))
    latent = torch.randn(num, generator.latent_channels)
    start = time.perf_counter()
    for step in range(STEPS):
        is_due = step % config.loss.r1_every == 0
        real = x.clone().requires_grad_(is_due)
        logit = adversary(real, time_of, x)
        loss = F.softplus(-logit).mean()
        if is_due:
            (gradient,) = torch.autograd.grad(logit.sum(), real, create_graph=True)
            loss = loss + gradient.square().mean()
        with torch.set_grad_enabled(wasted):
            fake = generator(x, time_of, latent=latent)
        (loss + F.softplus(adversary(fake, time_of, x)).mean()).backward()
        adversary.requires_grad_(False)
        F.softplus(-adversary(generator(x, time_of, latent=latent), time_of, x)).mean().backward()
        adversary.requires_grad_(True)
        for network in (generator, adversary):
            network.zero_grad()
    return time.perf_counter() - start


LOOPS: dict[str, Callable[[DictConfig], float]] = {
    "passes alone": passes,
    "train.py": lightning,
    "passes of the published program": lambda config: passes(config, wasted=True),
    "passes alone, again": passes,
}


def timed(run: Callable[[DictConfig], float]) -> float:
    with one_thread(), tempfile.TemporaryDirectory() as folder:
        return run(configuration(folder))


def rows(rounds: int) -> list[dict[str, Any]]:
    timings = between_ends({name: partial(timed, run) for name, run in LOOPS.items()}, rounds)
    return [
        {"loop": name, "ms a step": f"{1000 * each.seconds / STEPS:.0f}", "time": f"{1 / each.speed:.2f}"}
        for name, each in timings.items()
    ]


if __name__ == "__main__":
    for row in rows(5):
        print(row)
