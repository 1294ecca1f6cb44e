"""The W&B run of a training: one for each, finished at its end, and found again by what belongs to it."""

import glob
import json
import shlex
import signal
from pathlib import Path
from unittest.mock import Mock

import pytest
import wandb
from click.testing import CliRunner
from wandb.cli.cli import cli

from ddpm.base.environment import Environment
from ddpm.checkpoint.folder import list_checkpoints
from ddpm.commands import train
from ddpm.evaluation import results
from ddpm.metrics.protocol import EvaluationProtocol, Result
from ddpm.training.callbacks.interruption import Interrupted
from ddpm.training.callbacks.train_log import TrainLog
from ddpm.training.wandb_run import PROJECT, finished_runs, reopen_run, start_run, wandb_logger


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


NOT_ACCEPTED = [
    ({"project": "a/b"}, r"logger\.wandb\.project must be .*, got 'a/b'"),
    ({"project": "x" * 129}, r"logger\.wandb\.project must be"),
    ({"project": ""}, r"logger\.wandb\.project must be"),
    ({"project": 5}, r"logger\.wandb\.project must be"),
    ({"entity": "a/b"}, r"logger\.wandb\.entity must be .*, got 'a/b'"),
    ({"notes": 5}, r"logger\.wandb\.notes must be"),
    ({"tags": ["fine", ""]}, r"logger\.wandb\.tags must be .*, got \['fine', ''\]"),
    ({"tags": [5]}, r"logger\.wandb\.tags must be"),
    ({"tags": "fast"}, r"logger\.wandb\.tags must be"),
    ({"mode": "onlin"}, r"logger\.wandb\.mode must be .*; did you mean 'online'"),
    ({"mode": "online", "offline": True}, r"logger\.wandb\.mode=online .*logger\.wandb\.offline"),
    ({"log_model": "some"}, r"logger\.wandb\.log_model must be"),
]


@pytest.mark.parametrize(("given", "message"), NOT_ACCEPTED, ids=lambda each: str(each)[:30])
def test_what_wandb_does_not_accept_is_one_error_that_names_the_field(tmp_path, monkeypatch, given, message):
    monkeypatch.setattr("wandb.init", lambda **_: pytest.fail("a run was started"))
    settings = {"project": "p", "name": None, "group": None, "tags": None, "offline": None} | given
    with pytest.raises(ValueError, match=message) as caught:
        wandb_logger(**settings, save_dir=str(tmp_path), init_timeout=5)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("project", ["a b", "a&b", "ä", "x" * 128, *(f"a{sign}b" for sign in "/\\#?%:"), "x" * 129])
def test_the_rule_for_projects_is_that_of_the_client(project):
    try:
        accepted = wandb.Settings(project=project).project == project
    except wandb.errors.UsageError:
        accepted = False
    assert bool(PROJECT.fullmatch(project)) == accepted


def test_a_long_tag_is_shortened_with_a_message(tmp_path, offline_run, caplog):
    with finished_runs():
        wandb_logger("p", None, None, ["a" * 65, "b" * 64], str(tmp_path), True, 5)
    assert sorted(offline_run(tmp_path).about.tags) == ["a" * 64, "b" * 64]
    assert f"W&B allows 64 characters in a tag: {'a' * 65!r} is shortened" in caplog.text


def test_entity_notes_and_mode_reach_the_run(small, tmp_path, offline_run):
    words = ["logger.wandb.entity=team", "logger.wandb.notes=why", "logger.wandb.mode=offline"]
    train.run_train(small("logger=wandb", *words))
    about = offline_run(tmp_path / "run").about
    assert (about.entity, about.notes, about.project) == ("team", "why", "ddpm")


def test_a_disabled_run_writes_nothing(small, tmp_path):
    train.run_train(small("logger=wandb", "logger.wandb.mode=disabled"))
    assert not list((tmp_path / "run").glob("wandb*"))
    assert (tmp_path / "run" / "metrics.csv").exists()


def test_an_evaluation_keeps_tags_group_notes_and_job_type_of_the_training(tmp_path, offline_run, monkeypatch):
    about = {"entity": "team", "notes": "why"}
    with finished_runs():
        wandb_logger("p", "mine", "several", ["a", "b"], str(tmp_path), True, 5, **about)
    monkeypatch.setenv("WANDB_TAGS", "other")
    monkeypatch.setenv("WANDB_JOB_TYPE", "other")
    with finished_runs():
        reopen_run(tmp_path)
    runs = [offline_run(tmp_path, number).about for number in (0, -1)]
    for field in ("run_id", "project", "entity", "display_name", "run_group", "notes", "job_type"):
        assert getattr(runs[0], field) == getattr(runs[1], field), field
    assert [*runs[1].tags] == [*runs[0].tags] == ["a", "b"]
    assert runs[1].job_type == "train"


def test_an_identity_of_an_earlier_version_is_reopened(tmp_path, offline_run):
    (tmp_path / "wandb_run.json").write_text('{"project": "p", "name": "n", "run_id": "r"}')
    with finished_runs():
        reopen_run(tmp_path)
    assert offline_run(tmp_path).about.run_id == "r"


def test_the_command_that_sends_a_resumed_run_names_all_parts_in_order(tmp_path, caplog):
    folder = tmp_path / "a folder"
    folder.mkdir()
    parts = [folder / "wandb" / f"offline-run-20200101_00000{second}-mine" for second in (2, 1)]
    for path in [*parts, folder / "wandb" / "offline-run-20200101_000000-other"]:
        path.mkdir(parents=True)
    (folder / "wandb_run.json").write_text('{"project": "p", "name": "n", "run_id": "mine"}')
    with finished_runs():
        wandb_logger("p", None, None, None, str(folder), True, 5, resumes="auto")
    line = next(each for each in caplog.messages if "wandb sync" in each)
    program, command, pattern = shlex.split(line.partition("send this run: ")[2])
    assert (Path(program).name, command) == ("wandb", "sync")
    words = sorted(glob.glob(pattern))
    assert [Path(word).name for word in words[:2]] == [parts[1].name, parts[0].name]
    assert len(words) == 3
    listed = CliRunner().invoke(cli, ["sync", "--dry-run", *words])
    assert listed.exit_code == 0, listed.output


@pytest.mark.parametrize(("log_model", "uploads"), [("false", []), ("true", [4]), ("all", [2, 4])])
def test_checkpoints_are_uploaded_as_log_model_says(small, tmp_path, offline_run, log_model, uploads):
    words = [f"logger.wandb.log_model={log_model}", "checkpoint_every_n_steps=2", "trainer.max_steps=4"]
    train.run_train(small("logger=wandb", *words))
    artifacts = [each.artifact for each in offline_run(tmp_path / "run").records if each.HasField("artifact")]
    models = [each for each in artifacts if each.type == "model"]
    assert [each.manifest.contents[0].path for each in models] == [f"{step:08d}.ckpt" for step in uploads]
    assert all("latest" in each.aliases for each in models)


@pytest.mark.parametrize("error", [ConnectionResetError("Connection lost"), wandb.errors.CommError("gone")])
def test_a_training_whose_wandb_service_is_killed_goes_on_and_says_so_once(small, tmp_path, monkeypatch, error):
    """As the client raises it when its process is gone."""

    def lost(*_, **__):
        raise error

    monkeypatch.setattr(wandb.Run, "log", lost)
    with pytest.warns(UserWarning, match=r"W&B fails: .*; nothing more is logged there") as warned:
        train.run_train(small("logger=wandb"))
    assert sum("W&B fails" in str(each.message) for each in warned) == 1
    assert list_checkpoints(tmp_path / "run/checkpoints")[0].stem == "00000004"


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ({"mode": "nonsense"}, "mode Input should be 'online', 'offline'"),
        ({"tags": ["x" * 80]}, "run_tags Value error, Tag"),
        ({"id": "a/b"}, "Run ID cannot contain"),
        ({"project": "a/b"}, "Invalid project name 'a/b'"),
    ],
)
def test_what_wandb_refuses_is_one_line(tmp_path, setting, why):
    """As those of WANDB_MODE, WANDB_TAGS, WANDB_RUN_ID and WANDB_PROJECT, which it reads once in a process."""
    settings = {"mode": "offline", "dir": str(tmp_path)} | setting
    with pytest.raises(ValueError, match=f"^W&B refuses a setting of .* a variable WANDB_...: {why}.*$"):
        start_run(settings, settings.pop("mode"), 1)
