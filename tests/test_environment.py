"""What a run and a result record about the program that computed them."""

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

from ddpm.base import environment
from ddpm.base.environment import Environment, write_environment
from ddpm.commands import train
from ddpm.metrics.protocol import EvaluationProtocol, Result, read_result, write_result
from ddpm.report.results import Row


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository with a tracked copy of environment.py, which takes itself for a part of it."""
    folder = tmp_path / "code"
    file = folder / "src" / "environment.py"
    file.parent.mkdir(parents=True)
    file.write_text("first\n")
    for words in (["init"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "x"]):
        subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True)
    monkeypatch.setattr(environment, "__file__", str(file))
    monkeypatch.setattr(environment, "PROGRAM", folder)
    environment.code_version.cache_clear()
    yield file
    environment.code_version.cache_clear()


def head(file: Path) -> str:
    command = ["git", "-C", file.parent, "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_unchanged_code_is_its_commit_without_a_patch(repository, tmp_path):
    write_environment(Environment("cpu", "32"), tmp_path, "environment")
    assert json.loads((tmp_path / "environment.json").read_text())["commit"] == head(repository)
    assert not (tmp_path / "environment.patch").exists()


def test_the_patch_restores_the_changed_code(repository, tmp_path):
    repository.write_text("second\n")
    write_environment(Environment("cpu", "32"), tmp_path, "environment")
    assert json.loads((tmp_path / "environment.json").read_text())["commit"].startswith(f"{head(repository)}, changed")
    apply_patch(repository, tmp_path)
    assert repository.read_text() == "second\n"


def apply_patch(repository, folder):
    root = repository.parents[1]
    subprocess.run(["git", "-C", root, "checkout", "."], check=True, capture_output=True)
    subprocess.run(["git", "-C", root, "apply", folder / "environment.patch"], check=True)


def test_the_patch_has_new_files_of_the_code_and_no_other_file(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    new, other = repository.with_name("new schedule.py"), repository.parents[1] / "keys.txt"
    new.write_text("new\n")
    other.write_text("a secret\n")
    write_environment(Environment("cpu", "32"), tmp_path, "environment")
    assert "secret" not in (tmp_path / "environment.patch").read_text()
    monkeypatch.delenv("GIT_DIR")
    new.unlink()
    apply_patch(repository, tmp_path)
    assert new.read_text() == "new\n"


def test_a_large_patch_is_left_out_and_named(repository, tmp_path):
    repository.write_text("x" * environment.MAX_PATCH_BYTES)
    write_environment(Environment("cpu", "32"), tmp_path, "environment")
    assert "left out" in json.loads((tmp_path / "environment.json").read_text())["patch"]
    assert not (tmp_path / "environment.patch").exists()


def test_code_that_git_does_not_track_has_no_commit(repository, monkeypatch):
    monkeypatch.setattr(environment, "__file__", str(repository.with_name("other.py")))
    assert Environment("cpu", "32").commit == "none"


def test_results_of_earlier_versions_are_read_and_say_what_they_lack(tmp_path):
    protocol = EvaluationProtocol(num_generated=1, scores={"fid": "a"})
    write_result(tmp_path / "a.json", Result({"fid": 1.0}, {}, protocol, {"run": "a"}, Environment("cpu", "32", {})))
    content = json.loads((tmp_path / "a.json").read_text())
    content["environment"] = {"device": "cpu", "precision": "32", "versions": {"torch": "2"}}
    (tmp_path / "a.json").write_text(json.dumps(content))
    found = dataclasses.asdict(read_result(tmp_path / "a.json").environment)
    assert {found[name] for name in ("command", "commit", "processor", "num_processes")} == {"not recorded"}


def test_the_report_shows_commit_processor_and_processes():
    protocol = EvaluationProtocol(num_generated=1, scores={"fid": "a"})
    about = Environment("cpu", "32", {}, num_processes=2, processor="A, AVX2", commit="0f0f")
    how = Row(0, Result({"fid": 1.0}, {}, protocol, {"run": "a"}, about)).how
    assert (how["commit"], how["processor"], how["processes"]) == ("0f0f", "A, AVX2", "2")


def test_a_training_writes_its_environment_to_its_folder(small, tmp_path):
    train.run_train(small())
    found = json.loads((tmp_path / "run" / "environment_00000000.json").read_text())
    assert {"command", "commit", "processor", "precision", "num_processes", "versions"} <= found.keys()
