"""What all tests share: one thread each, configurations composed as the commands do, and a network of few weights."""

import os
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

ROOT = Path(__file__).resolve().parents[1]

SMALL = (
    *("model.base_channels=8", "model.num_groups=4", "data=digits", "data.batch_size=16", "logger=none"),
    *("model.patch_size=1", "sampler.steps=3", "trainer.max_steps=4", "trainer.log_every_n_steps=2", "trainer=cpu"),
    *("callbacks.samples.num_samples=4", "callbacks.denoising.num_samples=2", "optimizer.warmup_steps=2"),
)
"""Overrides that make any run of train.py a matter of seconds."""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Tests run side by side, and two threads that wait for each other on a busy core are slower than one."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("WANDB_MODE", "offline")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def config(tmp_path):
    """`config("train", "schedule=linear", ...)`: the configuration of a command, with its folder in tmp_path."""

    def composed(name, *overrides):
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return compose(name, overrides=[f"run_dir={tmp_path / 'run'}", *overrides])

    return composed


@pytest.fixture
def small(config):
    """A training configuration that runs in seconds: `small("objective=x0", ...)`."""
    return lambda *overrides: config("train", *SMALL, *overrides)


def command_environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
