"""The W&B run of a training: one for each, finished at its end, and found again by what belongs to it."""

import json
import signal
from unittest.mock import Mock

import pytest
import wandb

from ddpm.base.environment import Environment
from ddpm.commands import train
from ddpm.evaluation import results
from ddpm.metrics.protocol import EvaluationProtocol, Result
from ddpm.training.callbacks.interruption import Interrupted
from ddpm.training.callbacks.train_log import TrainLog
from ddpm.training.wandb_run import finished_runs, wandb_logger


@pytest.fixture
def opened(tmp_path, offline_run):
    """`opened("mine", resumes="auto")`: what the file of a training's run says of it."""

    def read(name=None, resumes=None, labels=()):
        with finished_runs():
            wandb_logger("p", name, None, None, str(tmp_path), True, 5, resumes=resumes, labels=dict(labels))
        return offline_run(tmp_path, -1).about

    return read


def test_a_resumed_training_goes_on_in_the_same_run_and_a_new_one_in_another(opened):
    typed = {"name": "mnist schedule=linear", "tags": ["schedule=linear"]}
    first = opened("mine", labels=typed)
    assert (first.display_name, list(first.tags)) == ("mine", ["schedule=linear"])
    resumed = opened(resumes="auto", labels=typed)
    assert (resumed.run_id, resumed.display_name) == (first.run_id, "mine")
    assert opened(labels=typed).run_id != first.run_id


@pytest.fixture
def own_run(tmp_path):
    """A run of somebody else's in the same process, as in a notebook."""
    run = wandb.init(project="theirs", dir=str(tmp_path), mode="offline", settings=wandb.Settings(silent=True))
    yield run
    run.finish()


@pytest.mark.parametrize(("error", "code"), [(ValueError("no"), 1), (Interrupted(signal.SIGTERM), 143)])
def test_a_training_that_fails_finishes_its_own_run_as_failed_and_no_other(
    small, tmp_path, monkeypatch, offline_run, own_run, error, code
):
    monkeypatch.setattr(TrainLog, "on_train_batch_end", Mock(side_effect=error))
    with pytest.raises(type(error)):
        train.run_train(small("logger=wandb"))
    run = offline_run(tmp_path / "run")
    assert run.exits == [code]
    assert run.about.run_id != own_run.id
    assert wandb.run is own_run
    own_run.log({"still": 1})  # an error in a run that is finished


def test_an_evaluation_goes_to_the_run_that_trained_and_finishes_it_again(small, tmp_path, offline_run, own_run):
    train.run_train(small("logger=wandb", "logger.wandb.name=mine"))
    protocol = EvaluationProtocol(num_generated=1, scores={"fid": "FID()"})
    results.log_to_run(tmp_path / "run", Result({"fid": 5.0}, {}, protocol, {"step": 4}, Environment("cpu", "32")))
    training, evaluation = offline_run(tmp_path / "run"), offline_run(tmp_path / "run", 1)
    identity = json.loads((tmp_path / "run" / "wandb_run.json").read_text())
    assert evaluation.about.run_id == training.about.run_id == identity["run_id"]
    assert evaluation.about.display_name == training.about.display_name == "mine"
    assert (evaluation.steps, evaluation.exits) == ([4], [0])
    assert wandb.run is own_run
