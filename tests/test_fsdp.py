"""trainer=fsdp on two processes: the numbers of one process, in files like any other's."""

import pytest
import torch
from omegaconf import OmegaConf
from precision import assert_rounded, roundings
from processes import command, ended, losses
from small_runs import SMALL

from ddpm.checkpoint.folder import list_checkpoints, remove
from ddpm.commands import train
from ddpm.config import load

SETTINGS = (
    *(*SMALL, "logger=csv", "optimizer.eps=1.0", "optimizer.lr=1.0e-2", "data.num_val=33", "data.num_train=64"),
    *("trainer.gradient_clip_val=0.05", "checkpoint_every_n_steps=1", "keep.last=9"),
)
"""A large eps keeps rounding small; every gradient is clipped; 33 images do not divide, so that one rank has more."""


def train_on_two(folder):
    """A hang is a failure too: the strategy waits for whoever does not come."""
    words = ("trainer.strategy=fsdp", "trainer.devices=2", "run_dir=run", "resume=auto")
    code, output = ended(command(folder, *SETTINGS, *words))
    assert code == 0, output
    return output


def state(run):
    return torch.load(run / "checkpoints" / "last.ckpt")


def assert_alike(one, other):
    groups = [each["optimizer_states"][0]["param_groups"][0]["params"] for each in (one, other)]
    assert groups[0] == groups[1]
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for key, weight in one["state_dict"].items():
        if isinstance(weight, torch.Tensor):
            assert_rounded(other["state_dict"][key], weight, 20, scale=1)
    for number, moments in one["optimizer_states"][0]["state"].items():
        for name, moment in moments.items():
            found = other["optimizer_states"][0]["state"][number][name]
            torch.testing.assert_close(found, moment, rtol=roundings(1000), atol=roundings(1))


@pytest.mark.slow
def test_shares_of_a_network_learn_what_the_whole_learns_and_a_run_goes_on_either_way(config, tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "run"
    train.run_train(config("train", *SETTINGS, f"run_dir={alone}"))
    train_on_two(tmp_path)
    assert losses(shared) == pytest.approx(losses(alone), rel=roundings(100))
    assert_alike(state(alone), state(shared))
    module, _ = load.from_checkpoint(shared / "checkpoints" / "last.ckpt", OmegaConf.create())
    assert torch.isfinite(module.generate(torch.arange(2), "ema")).all()

    whole = state(alone)
    for path in list_checkpoints(shared / "checkpoints")[:2]:
        remove(path)
    train.run_train(
        config("train", *SETTINGS, f"run_dir={alone}", f"resume.path={shared / 'checkpoints' / '00000002.ckpt'}")
    )
    assert_alike(whole, state(alone))
    assert "at step 2\n" in train_on_two(tmp_path)
    assert_alike(whole, state(shared))
