"""The complete loop of train.py against bare loops with the same steps, for the tiny U-Net.

"torch's noise" draws times, noise and order from torch's generator; it cannot be resumed or distributed exactly.
"keyed" uses this project's noise and loader. "train.py" adds Lightning, seeded dropout, the check for non-finite
values, logs, signals and two checkpoints, hashed and synced, in 50 steps: 200 times as many as by default. One thread,
because two threads vary most. Speeds are relative to the mean of the first and the last row of a round.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.bare_step import bare_step
from benchmarks.interleaved import between_ends, one_thread
from ddpm.config import build
from ddpm.diffusion.denoiser import NetworkDenoiser

CONF = Path(__file__).resolve().parents[1] / "conf"
STEPS = 50


def configuration(folder: str) -> DictConfig:
    GlobalHydra.instance().clear()
    overrides = [f"run_dir={folder}", "logger=csv", f"trainer.max_steps={STEPS}", "trainer=cpu"]
    overrides += ["~callbacks.samples", "~callbacks.denoising", f"checkpoint_every_n_steps={STEPS // 2}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides)


class TorchDraws:
    """Stands in for keyed draws."""

    def __init__(self, num: int) -> None:
        self.num = num

    def normal(self, stream: str, shape: tuple[int, ...], **_: Any) -> Tensor:
        return torch.randn(self.num, *shape)

    def integers(self, stream: str, high: int) -> Tensor:
        return torch.randint(high, (self.num,))


def plain(config: DictConfig) -> float:
    """Seconds for the steps with torch's own noise and order."""
    module, data = build.module(config).train(), build.data(config)
    data.setup("fit")
    pixels = torch.cat([batch["image"] for batch in data.eval_loader("train")])
    loader = DataLoader(TensorDataset(pixels), config.data.batch_size, shuffle=True, drop_last=True)
    optimizer, schedule = module.own_turn.make_optimizer(module.network.parameters())
    batches = iter(loader)
    start = time.perf_counter()
    for _ in range(STEPS):
        (image,) = next(batches)
        draws = TorchDraws(len(image))
        module.loss(NetworkDenoiser(module.network, module.model.objective), image, {}, draws).total.mean().backward()
        module.configure_gradient_clipping(optimizer, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        module.averages.update(module.network)
    return time.perf_counter() - start


def keyed(config: DictConfig) -> float:
    """The same with keyed noise and the resumable loader."""
    module, data = build.module(config).train(), build.data(config)
    data.setup("fit")
    optimizer, schedule = module.own_turn.make_optimizer(module.network.parameters())
    batches = iter(data.train_dataloader())
    start = time.perf_counter()
    for _ in range(STEPS):
        bare_step(module, optimizer, schedule, next(batches), epoch=0, bf16=False)
    return time.perf_counter() - start


def lightning(config: DictConfig) -> float:
    module, data, trainer = build.module(config), build.data(config), build.trainer(config)
    data.setup("fit")
    marks: list[float] = []
    module.on_train_start = lambda: marks.append(time.perf_counter())
    module.on_train_end = lambda: marks.append(time.perf_counter())
    trainer.fit(module, data)
    return marks[1] - marks[0]


LOOPS: dict[str, Callable[[DictConfig], float]] = {
    "bare, torch's noise": plain,
    "bare, keyed": keyed,
    "train.py": lightning,
    "bare, torch's noise, again": plain,
}


def timed(run: Callable[[DictConfig], float]) -> float:
    with one_thread(), tempfile.TemporaryDirectory() as folder:
        return run(configuration(folder))


def rows(rounds: int) -> list[dict[str, Any]]:
    timings = between_ends({name: partial(timed, run) for name, run in LOOPS.items()}, rounds)
    return [
        {"loop": name, "it/s": f"{STEPS / each.seconds:.1f}", "speed": f"{each.speed:.2f}"}
        for name, each in timings.items()
    ]
