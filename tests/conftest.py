"""What all tests share: one thread each, configurations composed as the commands do, and a network of few weights."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from small_runs import ROOT, SMALL


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """One thread, since two that wait for each other on a busy core are slower; and no cache of an earlier run."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path / "cache"))
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
