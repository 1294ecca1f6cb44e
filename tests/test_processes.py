"""Two processes, however they are started: one folder, the numbers of one process, and none left behind."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from precision import assert_rounded, roundings
from processes import LONG, checkpoints_of, command, ended, losses, members
from small_runs import SMALL

from ddpm.base import exit_codes
from ddpm.checkpoint.folder import list_checkpoints
from ddpm.checkpoint.reading import read_checkpoint
from ddpm.commands import train

SETTINGS = (*SMALL, "logger=csv", "optimizer.eps=1.0", "optimizer.lr=1.0e-2", "data.num_val=33", "data.num_train=64")
"""With a large eps Adam's steps are smooth in the gradients, so that rounding stays rounding. 2 do not divide 33."""
TWO = (*SETTINGS, "trainer.devices=2")


@pytest.fixture
def alone(config, tmp_path):
    """The folder of the same run in one process."""
    train.run_train(config("train", *SETTINGS, f"run_dir={tmp_path / 'alone'}"))
    return tmp_path / "alone"


def one_run_like(folder, alone):
    runs = [path for path in (folder / "runs").iterdir() if path.is_dir()]
    assert len(runs) == 1
    assert len(list(runs[0].glob(".hydra"))) == 1
    assert losses(runs[0]) == pytest.approx(losses(alone), rel=roundings(100))
    one, two = (read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (alone, runs[0]))
    for key, value in one.items():
        if isinstance(value, torch.Tensor):
            assert_rounded(two[key], value, 20, scale=1)
    pictures = [path.relative_to(alone) for path in alone.rglob("*.png")]
    assert len(pictures) == 3
    for picture in pictures:
        assert (runs[0] / picture).exists()
    return runs[0]


@pytest.mark.slow
def test_two_processes_learn_the_times_that_one_learns(config, tmp_path):
    """Loss-aware times: what every time's losses were, in the data's order, and so which times come next."""
    aware = ("loss=vlb", "variance=learned_range", "time_sampler=loss_aware", "schedule.num_timesteps=6")
    aware += ("time_sampler.num_losses=2", "trainer.max_steps=8", "sampler.steps=2")
    train.run_train(config("train", *SETTINGS, *aware, f"run_dir={tmp_path / 'alone'}"))
    code, output = ended(command(tmp_path, *TWO, *aware))
    assert code == 0, output
    (run,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    one, two = (read_checkpoint(path / "checkpoints" / "last.ckpt")["state_dict"] for path in (tmp_path / "alone", run))
    assert (one["time_sampler.num_seen"] >= 2).all()  # so that times were drawn by their losses
    assert torch.equal(two["time_sampler.num_seen"], one["time_sampler.num_seen"])
    assert_rounded(two["time_sampler.losses"], one["time_sampler.losses"], 1000)  # of the largest; eight steps


@pytest.mark.slow
@pytest.mark.parametrize(
    "told",
    [
        ("cond=class", "cond.dropout=0.5"),
        ("cond=class", "cond.dropout=0.5", "model=ldm_tiny", "model.head_channels=4"),
        ("cond=attributes", "model=caption_unet_tiny", "model.token_channels=8"),
        (
            *("cond=caption", "text=words", "text.token_channels=8", "model=text_unet_tiny", "data=mnist_captions"),
            *("data.size=8", "data.resize=box", "data.verify=false"),
        ),
    ],
    ids=["class", "class token", "attributes", "caption"],
)
def test_two_processes_learn_of_what_images_are_what_one_learns(config, tmp_path, told):
    """Labels go with their images, and which are hidden depends on no rank; vectors of other classes wait for none."""
    train.run_train(config("train", *SETTINGS, *told, f"run_dir={tmp_path / 'alone'}"))
    code, output = ended(command(tmp_path, *TWO, *told))
    assert code == 0, output
    one_run_like(tmp_path, tmp_path / "alone")


@pytest.mark.parametrize(
    "start",
    [
        (),
        pytest.param(("torchrun", "--nproc_per_node=2"), marks=pytest.mark.slow),
        pytest.param(("spawn",), marks=pytest.mark.slow),
    ],
    ids=["lightning", "torchrun", "spawn"],
)
def test_two_processes_share_a_folder_and_log_the_losses_of_one(tmp_path, alone, start):
    words = [*TWO, "trainer.strategy=ddp_spawn"] if start == ("spawn",) else [*TWO]
    torchrun = [str(Path(sys.executable).with_name(start[0])), *start[1:]] if start[:1] == ("torchrun",) else None
    process = command(tmp_path, *words, start=torchrun or (sys.executable,))
    code, output = ended(process)
    assert code == 0, output
    one_run_like(tmp_path, alone)


@pytest.mark.slow
def test_a_signal_to_one_rank_saves_and_ends_all_and_the_same_command_goes_on(tmp_path):
    process = command(tmp_path, *TWO, *LONG, "resume=auto")
    checkpoints_of(tmp_path, process, 3)
    os.kill(sorted(members(process.pid))[1], signal.SIGTERM)
    code, output = ended(process)
    assert code == 128 + signal.SIGTERM, output
    run = next((tmp_path / "runs").iterdir())
    step = int(list_checkpoints(run / "checkpoints")[0].stem)
    assert f"SIGTERM at step {step}: saved" in output

    process = command(tmp_path, *TWO, *LONG, "resume=auto")
    checkpoints_of(tmp_path, process, step + 2)
    os.kill(sorted(members(process.pid))[-1], signal.SIGKILL)  # now a rank dies
    code, output = ended(process)
    assert code == exit_codes.LOST, output
    assert f"at step {step:,}" in output
    assert "another process of this run is gone" in output
    assert "Last good checkpoint: " in output
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [run.name]


@pytest.mark.slow
def test_a_sweep_with_several_processes_is_refused_with_the_remedy(tmp_path):
    code, output = ended(command(tmp_path, "-m", *TWO, "schedule=linear,cosine"))
    assert code == 2
    assert "-m with trainer.devices=2 would start the sweep again in every process" in output
