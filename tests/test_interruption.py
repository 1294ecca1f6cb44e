"""Signals, and errors of one process or one rank: commands in processes of their own, and trainings here."""

import os
import signal
import time

import pytest
import torch
from lightning.pytorch import Callback
from processes import LONG, Command, checkpoints_of, command, ended, members
from small_runs import SMALL
from test_processes import TWO

from ddpm.checkpoint.folder import list_checkpoints
from ddpm.commands import train
from ddpm.commands.verify_resume import compare_runs
from ddpm.config import build
from ddpm.training.callbacks import sample_grid, train_log
from ddpm.training.callbacks.denoising_strip import DenoisingStrip

ENDLESS = ("num_samples=5000", "sampler.steps=100", "format=png", "out=made", "trainer=cpu", "batch_size=2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a training, and its checkpoint's path."""
    folder = tmp_path_factory.mktemp("trained")
    assert ended(Command("train.py", *SMALL, "run_dir=one", folder=folder))[0] == 0
    return f"ckpt={folder / 'one/checkpoints/last.ckpt'}"


def stopped(folder, number, words, under_way, to_all=False, rank=0, nohup=False):
    """Exit code and output of a command that gets a signal once `under_way` is true."""
    process = Command("sample.py", *words, folder=folder, nohup=nohup)
    deadline = time.monotonic() + 60
    while not under_way() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if nohup:
        os.kill(process.pid, signal.SIGHUP)
        time.sleep(1)
        assert process.poll() is None
    os.killpg(process.pid, number) if to_all else os.kill(sorted(members(process.pid))[rank], number)
    return ended(process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_ends_a_generation_which_says_what_is_kept_and_goes_on(tmp_path, trained, number):
    images = lambda: len(list(tmp_path.glob("made/images/[0-9]*.png")))  # noqa: E731
    code, output = stopped(tmp_path, number, (trained, *ENDLESS), images, nohup=number == signal.SIGTERM)
    assert code == 128 + number, output
    assert f"{number.name}: {images()} of 5,000 samples are kept; run the same command again to continue" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(("rank", "to_all"), [(0, False), (1, False), (0, True)], ids=["first", "second", "all"])
def test_a_signal_to_any_rank_ends_all_of_a_generation(tmp_path, trained, rank, to_all):
    words = (trained, *ENDLESS, "trainer.devices=2")
    under_way = lambda: len(list(tmp_path.glob("made/images/[0-9]*.png"))) > 3  # noqa: E731
    code, output = stopped(tmp_path, signal.SIGINT, words, under_way, to_all, rank)
    assert code == 128 + signal.SIGINT, output
    assert output.count("SIGINT: ") == 1


def test_a_signal_to_all_processes_of_a_job_does_not_take_the_data_workers_before_the_checkpoint(tmp_path):
    """As a scheduler, systemd and `timeout` send it."""
    process = Command("train.py", *SMALL, *LONG, "data.num_workers=2", "data.memory_limit_mb=0", folder=tmp_path)
    checkpoints_of(tmp_path, process, 2)
    os.killpg(process.pid, signal.SIGTERM)
    code, output = ended(process)
    (run,) = (tmp_path / "runs").iterdir()
    assert code == 128 + signal.SIGTERM, output
    assert f"SIGTERM at step {int(list_checkpoints(run / 'checkpoints')[0].stem)}: saved" in output


def test_further_signals_do_not_lose_the_checkpoint(tmp_path):
    process = command(tmp_path, *SMALL, *LONG)
    checkpoints_of(tmp_path, process, 2)
    for _ in range(5):
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.01)
    code, output = ended(process)
    (run,) = (tmp_path / "runs").iterdir()
    assert code == 128 + signal.SIGINT, output
    assert f"SIGINT at step {int(list_checkpoints(run / 'checkpoints')[0].stem)}: saved" in output
    assert "Traceback" not in output


# Errors


class FailsAt(Callback):
    """Once, in a hook of step 3."""

    def __init__(self, hook, error):
        def fail(trainer, *arguments):
            if trainer.global_step == 3:
                raise error

        setattr(self, hook, fail)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize(
    "hook", ["on_train_batch_end", "on_validation_batch_end", "on_train_batch_start", "on_before_backward"]
)
def test_a_training_that_an_error_ends_saves_its_last_step_and_loses_nothing(
    small, tmp_path, run_of, monkeypatch, hook, accumulation
):
    words = ("trainer.max_steps=6", "data.num_train=32", "data.num_val=8", "trainer.val_check_interval=1", "logger=csv")
    words += ("trainer.log_every_n_steps=2", f"trainer.accumulate_grad_batches={accumulation}")
    words += ("sample_every_n_steps=3", "resume.path=auto")
    make = build.trainer
    with monkeypatch.context() as patch:
        fail = FailsAt(hook, RuntimeError("a fault"))
        patch.setattr(build, "trainer", lambda *given: (made := make(*given), made.callbacks.append(fail))[0])
        with pytest.raises(RuntimeError, match="a fault"):
            train.run_train(small(*words))
    assert [path.stem for path in list_checkpoints(tmp_path / "run" / "checkpoints")] == ["00000003"]
    train.run_train(small(*words))
    assert not any(compare_runs(run_of(*words), tmp_path / "run").values())


def test_a_picture_that_cannot_be_drawn_ends_no_training_and_is_named_at_its_end(small, tmp_path, monkeypatch, capsys):
    train.run_train(small(f"run_dir={tmp_path / 'whole'}", "logger=csv", "~callbacks.samples", "~callbacks.denoising"))

    def fail(*arguments):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(DenoisingStrip, "draw", fail)
    monkeypatch.setattr("ddpm.training.callbacks.sample_grid.draw_samples", fail)
    train.run_train(small(f"run_dir={tmp_path / 'run'}", "logger=csv", "sample_every_n_steps=2"))
    last = capsys.readouterr().out.rpartition("\n\nnext:")[0].splitlines()[-6:]
    assert last[0] == "the grid of samples of the raw weights at step 2 failed: out of memory"
    assert last[5] == "the denoising strip at step 4 failed: out of memory"
    assert not any(compare_runs(tmp_path / "whole", tmp_path / "run").values())


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("module", "name"), [(sample_grid, "draw_samples"), (train_log, "log_numbers")])
def test_a_fault_of_one_rank_of_two_hangs_none(tmp_path, monkeypatch, rank, module, name):
    """In a picture it ends nothing; in what a step needs it ends all, and the step is saved."""
    working = getattr(module, name)

    def failing(*arguments):
        if int(os.environ.get("LOCAL_RANK", "0")) == rank:
            raise RuntimeError("a fault of this rank")
        return working(*arguments)

    monkeypatch.setattr(module, name, failing)  # before the ranks are forked
    words = (*TWO, "sample_every_n_steps=2", "trainer.log_every_n_steps=2")
    code, output = ended(Command("train.py", *words, folder=tmp_path))
    (run,) = (tmp_path / "runs").iterdir()
    last = list_checkpoints(run / "checkpoints")[0].stem
    assert "a fault of this rank" in output
    assert (code == 0, last) == ((True, "00000004") if name == "draw_samples" else (False, "00000002")), output
