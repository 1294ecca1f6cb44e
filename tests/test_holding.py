"""A checkpoint that is read stays what it was when the command named it, whatever a training does to the folder."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from ddpm.checkpoint import folder as files
from ddpm.checkpoint.reading import hold, holding, read_checkpoint
from ddpm.commands import evaluate, train
from ddpm.config import checkpoint_path, load


@pytest.fixture
def run(copied, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copied("checkpoint_every_n_steps=2", to="runs/mine")
    return Path("runs/mine/checkpoints")


@pytest.mark.filterwarnings("ignore:FID of 4")
def test_an_evaluation_measures_the_checkpoint_it_began_with_to_its_end(run, config, monkeypatch):
    """After each repeat a training writes another checkpoint, points last.ckpt at it and removes the one before."""
    made = load.from_checkpoint

    def while_training(path, changes):
        module = made(path, changes)
        for each in files.list_checkpoints(run)[:1]:
            newer = files.path_of_step(run, files.step_of(each) + 1)
            stored = torch.load(each, weights_only=True)
            for weight in stored["state_dict"].values():
                weight.add_(1) if torch.is_tensor(weight) and weight.is_floating_point() else None
            torch.save(stored, newer)
            files.point_link(run / "last.ckpt", newer)
            for path in files.list_checkpoints(run)[1:]:
                files.remove(path)
        return module

    monkeypatch.setattr(load, "from_checkpoint", while_training)
    words = ("ckpt=latest", "metric=fid", "features=mnist", "num_repeats=3", "num_samples=4", "num_real=20")
    evaluate.run_evaluate(config("evaluate", *words, "out=out", "trainer=cpu"))
    results = [OmegaConf.load(path) for path in Path("out").glob("*_fid_*.json")]
    assert len(results) == 3
    assert len({result.subject.weights_sha256 for result in results}) == 1
    assert {result.subject.seed for result in results} == {0, 1, 2}


def test_what_is_held_is_read_after_its_removal_and_read_anew_afterwards(run):
    link = run / "last.ckpt"
    with holding():
        hold(link)
        files.remove(link.resolve())
        assert read_checkpoint(link)["global_step"] == 4
        files.point_link(link, files.path_of_step(run, 2))
        assert read_checkpoint(link)["global_step"] == 4
    assert read_checkpoint(link)["global_step"] == 2


def test_a_checkpoint_that_goes_between_finding_and_opening_is_looked_for_again(run, monkeypatch):
    found = checkpoint_path.newest_intact

    def and_removed(folder):
        newest = found(folder)
        files.remove(newest)
        monkeypatch.setattr(checkpoint_path, "newest_intact", found)
        return newest

    with holding():
        monkeypatch.setattr(checkpoint_path, "newest_intact", and_removed)
        path = checkpoint_path.checkpoint_path("runs/mine")
    assert files.step_of(path) == 2


def test_the_latest_is_the_newest_checkpoint_though_an_older_run_is_typed_again(run, small):
    train.run_train(small("run_dir=runs/newer", "checkpoint_every_n_steps=2"))
    train.run_train(
        small("run_dir=runs/mine", "checkpoint_every_n_steps=2", "resume.path=auto")
    )  # nothing is left to train
    assert checkpoint_path.checkpoint_path("latest").parent == Path("runs/newer/checkpoints")


def test_processes_of_a_command_read_the_checkpoint_that_the_first_one_found(run, monkeypatch):
    first = checkpoint_path.checkpoint_path("latest")
    files.remove(first)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert checkpoint_path.checkpoint_path("latest") == first
    monkeypatch.delenv("LOCAL_RANK")
    assert checkpoint_path.checkpoint_path("latest") != first
