"""max_minutes: the steps that fit into the time are chosen once; the rest is an ordinary run of so many steps."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from processes import Command
from test_processes import TWO

from ddpm.base.program import CONF
from ddpm.checkpoint import folder as files
from ddpm.checkpoint.reading import read_checkpoint
from ddpm.commands import rehearsal, train
from ddpm.commands.defaults import following_options
from ddpm.commands.short_forms import expand_short_forms

TIMED = ("limits.max_minutes=0.2", "trainer.max_steps=null")
SHORT = ("data.num_train=64", "model.dropout=0.1", "checkpoint_every_n_steps=4")


@pytest.fixture
def clock(monkeypatch):
    """A clock that reads one second more each time: at begin and start, after steps 1 and 5, after the 4 steps that
    fit into a tenth of the time, and at the end. So a step takes a fraction of a second."""
    seconds = itertools.count()
    monkeypatch.setattr(rehearsal, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))


def trained(config):
    train.run_train(config)
    return torch.load(f"{config.run_dir}/checkpoints/last.ckpt", weights_only=True)


def same(one, other):
    tensors = {key: value for key, value in one["state_dict"].items() if isinstance(value, torch.Tensor)}
    return all(torch.equal(value, other["state_dict"][key]) for key, value in tensors.items())


def test_a_timed_run_is_the_run_of_the_chosen_number_of_steps_and_resumes_exactly(small, clock, tmp_path, capsys):
    timed = small(*SHORT, *TIMED)
    checkpoint = trained(timed)
    # A step of the warmup takes 1/4 s, so a tenth of 12 s allows 4 steps, which take 1 s. 7 s are left at the end.
    num = (12 - 5) * 4
    assert checkpoint["global_step"] == num
    assert checkpoint["config"]["trainer"]["max_steps"] == num
    assert f"limits.max_minutes=0.2: 4 steps took 1.0 s, so trainer.max_steps={num}" in capsys.readouterr().out
    ordinary = trained(small(*SHORT, f"trainer.max_steps={num}", f"run_dir={tmp_path / 'ordinary'}"))
    assert same(checkpoint, ordinary)
    rate = checkpoint["lr_schedulers"][0]["_last_lr"][0]
    assert rate == ordinary["lr_schedulers"][0]["_last_lr"][0] < 1e-9, "the learning rate has reached its end"
    checkpoints = tmp_path / "run" / "checkpoints"
    for path in files.list_checkpoints(checkpoints):
        if files.step_of(path) > 24:
            files.remove(path)
    resumed = trained(small(*SHORT, *TIMED, "resume.path=auto"))
    assert f"trainer.max_steps={num}" not in capsys.readouterr().out, "nothing is measured again"
    assert same(checkpoint, resumed)


def test_another_time_is_another_run(small, run_of, clock, copied):
    copied(*SHORT, *TIMED)
    with pytest.raises(ValueError, match=r"limits.max_minutes: 0.2 -> 0.3"):
        train.run_train(small(*SHORT, "limits.max_minutes=0.3", "trainer.max_steps=null", "resume.path=auto"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["limits.max_minutes=0", "trainer.max_steps=null"], "limits.max_minutes must be greater than 0, got 0"),
        (["limits.max_minutes=1"], "limits.max_minutes chooses trainer.max_steps"),
        ([*TIMED, "trainer.strategy=ddp_spawn"], "give trainer.max_steps"),
        ([*TIMED, "data.num_train=32", "++trainer.max_epochs=1"], "could measure no step"),
    ],
)
def test_times_that_choose_nothing_are_refused(small, words, message):
    with pytest.raises(ValueError, match=message):
        train.run_train(small(*words))


def test_the_short_form_leaves_the_steps_open():
    expanded = expand_short_forms(["max_minutes=4", "seed=1"], CONF, "train")
    assert set(expanded) == {"limits.max_minutes=4", "trainer.max_steps=null", "seed=1"}
    assert following_options(expanded) == expanded, "the processes of other ranks get these words"
    with pytest.raises(ValueError, match=r"max_minutes=4 chooses trainer.max_steps"):
        expand_short_forms(["max_minutes=4", "trainer.max_steps=3"], CONF, "train")


def test_all_processes_train_the_number_of_steps_that_the_first_one_chose(tmp_path):
    words = [word for word in TWO if not word.startswith("trainer.max_steps=")]
    process = Command("train.py", *words, "max_minutes=0.05", "name=timed", folder=tmp_path)
    output, _ = process.communicate()
    assert process.wait() == 0, output
    (path,) = tmp_path.glob("runs/*/checkpoints/last.ckpt")
    stored = read_checkpoint(path)
    assert stored["global_step"] == stored["config"]["trainer"]["max_steps"]
    assert OmegaConf.load(path.parent / "config.yaml").trainer.max_steps == stored["global_step"]
