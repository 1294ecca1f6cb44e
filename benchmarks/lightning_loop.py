"""The whole of train.py's loop, with its callbacks and logs, beside a bare loop over the same steps: the tiny U-Net."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from benchmarks.bare_step import bare_step
from ddpm import build

CONF = Path(__file__).resolve().parents[1] / "conf"
STEPS = 100


def configuration(folder: str) -> DictConfig:
    GlobalHydra.instance().clear()
    overrides = [f"run_dir={folder}", "logger=csv", f"trainer.max_steps={STEPS}", "trainer=cpu"]
    overrides += ["~callbacks.samples", "~callbacks.denoising", "~callbacks.checkpoint"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides)


def bare(config: DictConfig) -> float:
    """Seconds for the steps alone."""
    module, data = build.module(config).train(), build.data(config)
    data.setup("fit")
    optimizer, schedule = module.make_optimizer(module.network.parameters())
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


def rows(rounds: int) -> list[dict[str, Any]]:
    seconds: dict[str, list[float]] = {"bare loop": [], "train.py's loop": []}
    for number in range(rounds):
        for name, run in [("bare loop", bare), ("train.py's loop", lightning)][:: 1 if number % 2 else -1]:
            with tempfile.TemporaryDirectory() as folder:
                seconds[name].append(run(configuration(folder)))
    speed = statistics.median(b / o for b, o in zip(*seconds.values(), strict=True))
    speeds = {"bare loop": 1.0, "train.py's loop": speed}
    return [
        {"loop": name, "it/s": f"{STEPS / statistics.median(own):.1f}", "speed": f"{speeds[name]:.2f}"}
        for name, own in seconds.items()
    ]
