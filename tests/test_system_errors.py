"""An error of the system names the file, says what was kept, and leaves no part of a file."""

import contextlib
import errno
import io
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from matplotlib.figure import Figure
from report.made_up import make_run, result
from small_models import trained
from small_runs import configured

from ddpm.base.atomic import SEARCHED, atomic_write, remove_partial_files, write_atomically
from ddpm.base.exit_codes import DISK_FULL, exit_code
from ddpm.base.plots import save_figure
from ddpm.base.system_errors import describe, naming
from ddpm.base.tables import write_csv
from ddpm.checkpoint.writing import AtomicCheckpointIO
from ddpm.commands import cli, evaluate, report, sample, train
from ddpm.evaluation.results import store_result
from ddpm.generation.identity import explain_kept
from ddpm.generation.stores.base import save_png
from ddpm.generation.stores.row_store import RowStore
from ddpm.interop.weights import save_tensors
from ddpm.interop.write_folder import write_folder
from ddpm.metrics.statistics import write_arrays

FULL = "File too large"


@contextlib.contextmanager
def room(num_bytes):
    """No file may be larger, as on a disk that fills up while it is written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def figure():
    drawn = Figure()
    drawn.subplots().plot(np.random.default_rng(0).normal(size=1000))
    return drawn


def exported(path):
    with write_folder(path) as folder:
        (folder / "config.json").write_text("x" * 5000)


def exported_tensors(path):
    with write_folder(path) as folder:
        save_tensors({"a": torch.ones(5000)}, folder / "model.safetensors")


WRITERS = {
    "data": lambda path: write_atomically(path, bytes(5000)),
    "table": lambda path: write_csv(path, [{"a": "x" * 5000}]),
    "picture": lambda path: save_png(path, np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)),
    "figure": lambda path: save_figure(figure(), path),
    "arrays": lambda path: write_arrays(path, {"a": np.ones(5000)}),
    "folder": exported,
    "folder of tensors": exported_tensors,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_writer_names_its_file_and_leaves_what_was_there(tmp_path, writer):
    path = tmp_path / "mine"
    if "folder" not in writer:
        path.write_text("before")
    with room(1000), pytest.raises(OSError, match=r".") as raised:
        WRITERS[writer](path)
    assert str(path) in str(raised.value)
    assert raised.value.errno in (errno.EFBIG, errno.EIO)
    assert ".partial" not in str(raised.value)
    assert [each.name for each in tmp_path.iterdir()] == ([] if "folder" in writer else ["mine"])
    assert "folder" in writer or path.read_text() == "before"


def test_a_checkpoint_that_has_no_room_names_its_file_and_leaves_the_one_before(tmp_path):
    writer, path = AtomicCheckpointIO(), tmp_path / "1.ckpt"
    writer.save_checkpoint({"a": 1}, path)
    before = path.read_bytes()
    with room(1000):
        writer.save_checkpoint({"a": torch.ones(5000)}, path)
    assert exit_code(writer.failure) == DISK_FULL
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["1.ckpt", "1.ckpt.sha256"]


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO]
)
def test_the_message_names_the_file_the_cause_the_remedy_and_what_is_kept(number):
    with pytest.raises(OSError, match=r".") as raised, naming(Path("a/b.json")):
        raise OSError(number, os.strerror(number))
    said = describe(raised.value)
    assert said.startswith(f"a/b.json: {os.strerror(number)}; ")
    assert said.endswith(". All files written before are intact and kept")


def test_an_error_that_names_no_file_names_the_folder_in_which_hydra_writes(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "seed=1", "hydra.run.dir=runs/x"])
    assert describe(OSError(errno.ENOSPC, "No space left on device"), cli.folder()).startswith("runs/x: No space left")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert cli.folder() == str(Path.cwd())


def test_an_error_of_another_library_is_not_changed():
    error = OSError("Can't load the tokenizer")
    with pytest.raises(OSError, match=r"^Can't load the tokenizer$"), naming(Path("x")):
        raise error
    assert describe(error, "runs/x") == "Can't load the tokenizer"


# Commands


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("errors"))


def test_a_resume_on_a_full_disk_names_the_file_and_keeps_the_run(copied, small, tmp_path):
    run = copied("checkpoint_every_n_steps=2", "logger=csv")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with room(10), pytest.raises(OSError, match=rf"{FULL}: '.*run/"):
        train.run_train(small("checkpoint_every_n_steps=2", "logger=csv", "resume.path=auto"))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.filterwarnings("ignore:FID of 4")
def test_an_evaluation_on_a_full_disk_names_its_result(checkpoint, tmp_path):
    words = ("metric=fid", "features=mnist", "num_samples=4", "num_real=20", "keep_images=false", "trainer=cpu")
    config = configured("evaluate", tmp_path, f"ckpt={checkpoint}", *words)
    config.out = str(tmp_path / "out")
    evaluate.run_evaluate(config)  # fills the cache of reference features
    (result,) = (tmp_path / "out").glob("*.json")
    config.out = str(tmp_path / "full")
    with room(100), pytest.raises(OSError, match=rf"{FULL}: '{tmp_path}/full/{result.name}'"):
        evaluate.run_evaluate(config)
    assert list((tmp_path / "full").iterdir()) == []


@pytest.mark.parametrize("metric", ["fid", "nll"])
def test_a_folder_of_results_that_cannot_be_written_is_named_before_anything_is_measured(
    checkpoint, tmp_path, monkeypatch, metric
):
    words = ("num_samples=4", "num_real=20") if metric == "fid" else ()
    words += (f"ckpt={checkpoint}", f"metric={metric}", "features=mnist", "trainer=cpu")
    config = configured("evaluate", tmp_path, *words)
    config.out = str(tmp_path / "shared/results")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    monkeypatch.setattr(Trainer, "predict", lambda *_, **__: pytest.fail("something is measured"))
    with pytest.raises(ValueError, match=r"shared/results cannot be written: .* choose another folder with out="):
        evaluate.run_evaluate(config)


def test_the_values_of_an_evaluation_are_printed_before_they_are_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        store_result(tmp_path / "file/x.json", "mine", result({"fid_digits_1k": 17.25}))
    assert "fid_digits_1k  17.2" in capsys.readouterr().out


def test_images_of_an_evaluation_that_cannot_be_kept_are_answered_with_its_own_remedy(tmp_path):
    store = RowStore(tmp_path, 3, (1, 8, 8))
    with (
        pytest.raises(ValueError, match=r"^[^=]*: 0 of 3 samples are kept; .* or add keep_images=false$"),
        explain_kept(store, *evaluate.NOT_KEPT),
    ):
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / "images.rows"))


def test_a_task_on_a_full_disk_names_its_file(checkpoint, tmp_path):
    config = configured("sample", tmp_path, f"ckpt={checkpoint}", "task=denoise", "trainer=cpu")
    config.out = str(tmp_path / "full")
    with room(1000), pytest.raises(OSError, match=rf"{FULL}: '{tmp_path}/full/denoise"):
        sample.run_sample(config)


@pytest.mark.parametrize("name", ["x" * 300 + ".html", "file/report.html"])
def test_a_report_that_cannot_be_written_names_its_file(tmp_path, capsys, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        report.main([str(make_run(tmp_path / "run")), "--out", str(tmp_path / name)])
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path}/{name.split('/')[0]}")
    assert "choose another path. All files written before are intact and kept" in said


# Temporary files of killed processes


def test_temporary_files_of_killed_trainings_are_removed_on_resume(copied, small):
    checkpoints = copied() / "checkpoints"
    (checkpoints / ".00000004.ckpt.partial").write_bytes(bytes(1000))
    (checkpoints / ".config.yaml.17.partial").write_bytes(bytes(10))
    train.run_train(small("resume.path=auto"))
    assert list(checkpoints.glob(".*")) == []


def test_abandoned_temporary_files_are_removed_and_those_in_work_are_not(tmp_path):
    def old(name, seconds, folder=False):
        path = tmp_path / f".{name}.17.partial"
        written = path / "weights" if folder else path
        written.parent.mkdir(exist_ok=True)
        written.write_text("x")
        for each in {written, path}:
            os.utime(each, (time.time() - seconds,) * 2)
        return path

    gone = [old("a.json", 4000), old("export", 4000, folder=True)]
    kept = [old("b.json", 3000), old("other", 3000, folder=True)]
    growing = old("large", 4000, folder=True)
    (growing / "weights").write_text("more")
    SEARCHED.clear()
    write_atomically(tmp_path / "new", b"")
    assert [path.exists() for path in (*gone, *kept, growing)] == [False, False, True, True, True]


@pytest.mark.parametrize("name", [".movie.mp4.partial", ".download.partial", ".x.ckpt.partial", ".17.partial"])
def test_temporary_files_of_other_programs_are_left(tmp_path, name):
    path = tmp_path / name
    path.write_text("x")
    os.utime(path, (time.time() - 1e6,) * 2)
    SEARCHED.clear()
    write_atomically(tmp_path / "new", b"")
    remove_partial_files(tmp_path)
    assert path.exists()


def test_the_age_of_a_temporary_file_does_not_depend_on_the_local_clock(tmp_path, monkeypatch):
    (tmp_path / ".a.17.partial").write_text("x")
    monkeypatch.setattr(time, "time", lambda: 1e10)
    SEARCHED.clear()
    with atomic_write(tmp_path / "b") as partial:
        partial.write_text("")
    assert (tmp_path / ".a.17.partial").exists()


def test_a_folder_in_work_beside_generated_images_is_left(tmp_path):
    (tmp_path / ".export.17.partial").mkdir()
    (tmp_path / ".a.17.partial").write_text("x")
    remove_partial_files(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".export.17.partial"]
