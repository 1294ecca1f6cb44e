"""The W&B run of a training: one for each, finished at its end, and found again by what belongs to it."""

import json
import signal

import pytest
import wandb
from lightning.pytorch import Callback

from ddpm import build, results, train
from ddpm.measure import WITHOUT_FEATURES
from ddpm.metrics.protocol import Environment, EvaluationProtocol, Result
from ddpm.training.callbacks.interruption import Interrupted
from ddpm.training.wandb_run import Labels, finished_runs, wandb_logger

LABELS = Labels("mnist schedule=linear", "a_sweep", ["schedule=linear"])


@pytest.fixture
def opened(tmp_path, offline_run):
    """`opened(name=..., resumes=...)`: the run that a training of this folder logs to, read back."""

    def read(name=None, group=None, tags=None, resumes=None):
        with finished_runs():
            wandb_logger("p", name, group, tags, str(tmp_path), True, 5, resumes=resumes, labels=LABELS)
        return offline_run(tmp_path, -1).about

    return read


def test_a_resumed_training_goes_on_in_the_same_run_and_a_new_one_in_another(opened):
    first = opened(name="mine").run_id
    resumed = opened(resumes="auto")
    assert (resumed.run_id, resumed.display_name) == (first, "mine")
    assert opened().run_id != first


def test_what_is_given_wins_over_what_was_typed(opened):
    typed, given = opened(), opened("mine", "my group", ["a", "b"])
    assert (typed.display_name, typed.run_group, list(typed.tags)) == LABELS
    assert (given.display_name, given.run_group, list(given.tags)) == ("mine", "my group", ["a", "b"])


@pytest.fixture
def own_run(tmp_path):
    """A run of somebody else's in the same process, as in a notebook."""
    run = wandb.init(project="theirs", dir=str(tmp_path), mode="offline", settings=wandb.Settings(silent=True))
    yield run
    run.finish()


@pytest.mark.parametrize(("error", "code"), [(ValueError("no"), 1), (Interrupted(128 + signal.SIGTERM), 143)])
def test_a_training_that_fails_finishes_its_own_run_as_failed_and_no_other(
    small, tmp_path, monkeypatch, offline_run, own_run, error, code
):
    class Fails(Callback):
        def on_train_batch_end(self, *_):
            raise error

    make = build.trainer
    monkeypatch.setattr(build, "trainer", lambda config: (t := make(config), t.callbacks.append(Fails()))[0])
    with pytest.raises(type(error)):
        train.run(small("logger=wandb"))
    run = offline_run(tmp_path / "run")
    assert run.exits == [code]
    assert run.about.run_id != own_run.id
    assert wandb.run is own_run
    own_run.log({"still": 1})  # an error where it is finished


def test_an_evaluation_goes_to_the_run_that_trained_and_finishes_it_again(small, tmp_path, offline_run, own_run):
    train.run(small("logger=wandb", "logger.wandb.name=mine"))
    protocol = EvaluationProtocol(num_generated=1, scores={"fid": {}}, **WITHOUT_FEATURES)
    results.log_to_run(tmp_path / "run", Result({"fid": 5.0}, {}, protocol, {"step": 4}, Environment("cpu", "32")))
    training, evaluation = offline_run(tmp_path / "run"), offline_run(tmp_path / "run", 1)
    identity = json.loads((tmp_path / "run" / "wandb_run.json").read_text())
    assert evaluation.about.run_id == training.about.run_id == identity["run_id"]
    assert evaluation.about.display_name == training.about.display_name == "mine"
    assert (evaluation.steps, evaluation.exits) == ([4], [0])
    assert wandb.run is own_run
