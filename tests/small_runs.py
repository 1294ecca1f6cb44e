"""Settings with which any run is a matter of seconds, and the environment of a command that a test starts."""

import copy
import csv
import os
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

ROOT = Path(__file__).resolve().parents[1]
THREADS = int(os.environ.get("DDPM_TEST_THREADS", "1"))

SMALL = (
    *("model.base_channels=8", "model.num_groups=4", "data=digits", "data.batch_size=16", "logger=none"),
    *("model.patch_size=1", "sampler.steps=3", "trainer.max_steps=4", "trainer.log_every_n_steps=2", "trainer=cpu"),
    *("callbacks.samples.num_samples=4", "callbacks.denoising.num_samples=2", "optimizer.warmup_steps=2"),
)
"""Overrides that make any run of train.py a matter of seconds."""


@cache
def composed(name, *words):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(name, overrides=[*words])


def configured(name, folder, *words):
    """The configuration of a command with these words, which among them may have another run_dir than `folder`."""
    folders = [folder, *(word.removeprefix("run_dir=") for word in words if word.startswith("run_dir="))]
    usual = (
        ("experiment=mnist",) if name == "train" and not any(word.startswith("experiment=") for word in words) else ()
    )
    config = copy.deepcopy(composed(name, *usual, *(word for word in words if not word.startswith("run_dir="))))
    config.run_dir = str(folders[-1])
    return config


def csv_rows(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def command_environment():
    return {**os.environ, "OMP_NUM_THREADS": str(THREADS), "WANDB_MODE": "offline"}
