"""A damaged file of a run folder is named and kept, and the command goes on or ends with one line."""

import contextlib
import csv
import io
import json
import os
from pathlib import Path

import pytest
import yaml
from report.made_up import result
from small_runs import csv_rows

from ddpm.base.tables import read_steps
from ddpm.checkpoint.folder import set_aside
from ddpm.checkpoint.integrity import find_damage, sidecar
from ddpm.commands import compare, train
from ddpm.commands.verify_resume import logged_numbers
from ddpm.config import analytic
from ddpm.data.sources.npz import Npz
from ddpm.generation.record import GenerationRecord
from ddpm.metrics.protocol import write_result
from ddpm.metrics.reference_cache import ReferenceCache
from ddpm.metrics.statistics import read_statistics
from ddpm.runs import run_folder
from ddpm.training.metrics_table import MetricsTable

DAMAGES = {
    "binary": b"\x89PNG\r\n\x1a\n\x00\xff\xfe",
    "no step": b"train/loss\n1\n2\n",
    "a huge field": b"step,train/loss\n2," + b"9" * 200_000 + b"\n",
    "an open quote": b'step,train/loss\n2,"1\n' + b"3,1\n" * 50_000,
    "two columns of one name": b"step,a,a\n2,1,1\n",
    "steps that are none": b"step,train/loss\nx,1\n-3,2\n\xc2\xb2,3\n" + b"9" * 5000 + b",4\n",
    "a cut row": b"step,train/loss\n2,0.25\n4,0.1",
    "NUL": b"step,train/loss\n2\x00,0.25\n",
    "empty lines": b"\n\n\n",
}
KEPT = {"a cut row": [{"step": "2", "train/loss": "0.25"}]}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_table_of_metrics_is_named_and_kept_and_the_run_goes_on(copied, small, tmp_path, damage):
    words = ("checkpoint_every_n_steps=2", "logger=csv")
    path = copied(*words) / "metrics.csv"
    whole = csv_rows(path)
    (tmp_path / "run/checkpoints/00000004.ckpt").unlink()
    path.write_bytes(DAMAGES[damage])
    (tmp_path / "run/metrics.csv.aside").write_text("of an earlier time")
    if damage == "empty lines":
        train.run_train(small(*words, "resume.path=auto"))
    else:
        with pytest.warns(
            UserWarning, match=r"run/metrics\.csv.*kept as .*run/metrics\.csv\.aside2, and the run contin"
        ):
            train.run_train(small(*words, "resume.path=auto"))
        assert (tmp_path / "run/metrics.csv.aside2").read_bytes() == DAMAGES[damage]
    assert (tmp_path / "run/metrics.csv.aside").read_text() == "of an earlier time"
    rows = csv_rows(path)
    assert [row["step"] for row in rows] == [*(row["step"] for row in KEPT.get(damage, ())), "4"]
    assert rows[-1]["train/loss"] == whole[-1]["train/loss"], "the training is the same"


def test_a_table_that_is_damaged_during_the_training_is_kept_too(tmp_path):
    table = MetricsTable(str(tmp_path))
    table.log_metrics({"a": 1}, 1)
    table.log_metrics({"a": 2}, 2)
    table.path.write_bytes(b"\xff")
    table.log_metrics({"b": 3}, 3)
    with pytest.warns(UserWarning, match=r"metrics\.csv must be UTF-8 text.*kept as .*metrics\.csv\.aside"):
        table.finalize("success")
    assert csv_rows(table.path)[-1] == {"step": "3", "a": "", "b": "3"}
    assert (tmp_path / "metrics.csv.aside").read_bytes() == b"\xff2,2\n", "with the row that was appended"


def test_what_is_no_file_in_the_place_of_the_metrics_is_kept_aside(tmp_path):
    os.mkfifo(tmp_path / "metrics.csv")
    table = MetricsTable(str(tmp_path))
    with pytest.warns(UserWarning, match=r"metrics\.csv must be a file.*metrics\.csv\.aside"):
        table.continue_from(2)
    assert (tmp_path / "metrics.csv.aside").is_fifo()


def test_a_missing_table_of_a_resumed_run_is_mentioned(tmp_path, recwarn):
    MetricsTable(str(tmp_path)).continue_from(0)
    assert not recwarn
    with pytest.warns(UserWarning, match=r"metrics\.csv does not exist, so it gets the values after step 2 only"):
        MetricsTable(str(tmp_path)).continue_from(2)


def test_tables_of_other_runs_are_kept_each_under_its_own_name(tmp_path):
    for number in range(3):
        (tmp_path / "metrics.csv").write_text(str(number))
        MetricsTable(str(tmp_path)).continue_from(0)
    kept = [tmp_path / f"metrics.csv.aside{number}" for number in ("", "2", "3")]
    assert [path.read_text() for path in kept] == ["0", "1", "2"]


def test_every_row_of_a_table_is_read_or_counted(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text('step,a\n1,2\n\nx,3\n4\n5,6,7\n8,"9\n9"\n10,1')
    columns, rows, unreadable = read_steps(path)
    assert (columns, rows, unreadable) == (["step", "a"], [{"step": "1", "a": "2"}, {"step": "8", "a": "9\n9"}], 4)
    assert logged_numbers(path)["8", "a"] == "9\n9"
    assert len(list(csv.reader(io.StringIO(path.read_text())))) == 1 + 1 + len(rows) + unreadable  # and an empty line


def test_no_other_code_reads_tables_by_itself():
    readers = [path for path in Path("src/ddpm").rglob("*.py") if "csv.reader(" in path.read_text()]
    assert readers == [Path("src/ddpm/base/tables.py")]


# Sweeps and estimates


@pytest.mark.parametrize("task", ["x", [3], [None], ["x", 2.5], [["x"]], {"x": 1}, None], ids=str)
@pytest.mark.parametrize("place", [("hydra", "overrides", "task"), ("hydra", "overrides"), ("hydra",), ()], ids=str)
def test_a_sweep_with_arguments_of_another_kind_is_named_and_skipped(tmp_path, monkeypatch, capsys, task, place):
    monkeypatch.chdir(tmp_path)
    content = task
    for name in reversed(place):
        content = {name: content}
    for name, each in {"good": {"hydra": {"overrides": {"task": ["x"]}}}, "odd": content}.items():
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "multirun.yaml").write_text(yaml.safe_dump(each))
    os.utime(tmp_path / "runs/good", (0, 0))
    assert run_folder.find_sweep(["x"]) == Path("runs/good")
    said = capsys.readouterr().err
    assert "runs/odd/multirun.yaml cannot be read and is skipped: hydra.overrides.task must be a list of texts" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("text", ["[]", "[1]", "3", "null", '"x"', "{}", '{"digest": 1}', "{", ""])
def test_a_damaged_estimate_of_the_variance_counts_as_absent(tmp_path, text):
    (tmp_path / "estimate.json").write_text(text)
    assert analytic.read_estimate(tmp_path / "estimate.json") is None


# Results and records


ODD = [None, 3, "x", [], {}, [1], {"a": 1}, float("inf"), 10**400, [[]]]


@pytest.mark.parametrize("value", ODD, ids=str)
@pytest.mark.parametrize("field", ["metrics", "errors", "protocol", "subject", "environment", "value", "scores", "kid"])
def test_a_result_with_a_value_of_another_kind_is_no_traceback(tmp_path, field, value, capsys):
    good = tmp_path / "good.json"
    write_result(good, result({"fid_digits_1k": 1.0}))
    content = json.loads(good.read_text())
    holder = {"value": content["metrics"], "scores": content["protocol"], "kid": content["protocol"]["scores"]}
    holder.get(field, content)["fid_digits_1k" if field == "value" else field] = value
    (tmp_path / "odd.json").write_text(json.dumps(content))
    with contextlib.suppress(SystemExit):  # some values are possible
        compare.main([str(good), str(tmp_path / "odd.json")])
    assert all(line.startswith("error: ") for line in capsys.readouterr().err.splitlines()[:1])


@pytest.mark.parametrize("text", ['{"metrics": {"fid": "x"}', '{"fid": "x"}', "[]", '{"metrics": 3'])
def test_a_result_that_cannot_be_read_is_named(tmp_path, text, capsys):
    write_result(tmp_path / "good.json", result({"fid_digits_1k": 1.0}))
    whole = (tmp_path / "good.json").read_text()
    (tmp_path / "odd.json").write_text(whole.replace("1.0", '"x"') if text == "[]" else text)
    with pytest.raises(SystemExit, match="2"):
        compare.main([str(tmp_path / "good.json"), str(tmp_path / "odd.json")])
    assert str(tmp_path / "odd.json") in capsys.readouterr().err


@pytest.mark.parametrize("value", ODD, ids=str)
@pytest.mark.parametrize("field", ["num_samples", "made_with", "timings", "sampler", "cond"])
def test_a_record_with_a_value_of_another_kind_is_refused_in_one_line(tmp_path, field, value):
    about = {"num_samples": 3, "made_with": [{"batch_size": 2}], "sampler": {"_target_": "x"}}
    (tmp_path / "generation.json").write_text(json.dumps(about | {field: value}))
    record = GenerationRecord(tmp_path, {"num_samples": 3, "sampler": {"_target_": "y"}}, {})
    with pytest.raises(ValueError, match=str(tmp_path)):
        record.refuse_to_mix(grows=True, has_images=True)


# Checkpoints and stored images


@pytest.mark.parametrize("damage", ["missing", "empty", "folder"])
def test_a_run_without_readable_settings_is_named_by_resume_auto(copied, small, monkeypatch, tmp_path, capsys, damage):
    settings = copied(to="runs/mine") / "checkpoints/config.yaml"
    monkeypatch.chdir(tmp_path)
    settings.unlink()
    if damage != "missing":
        settings.write_text("") if damage == "empty" else settings.mkdir()
    capsys.readouterr()
    assert run_folder.find_run(small()) is None
    assert "runs/mine/checkpoints/config.yaml cannot be read and is skipped: " in capsys.readouterr().err


def test_checkpoints_of_one_step_that_are_set_aside_are_all_kept(tmp_path):
    for content in ("first", "second"):
        (tmp_path / "00000004.ckpt").write_text(content)
        (tmp_path / "00000004.ckpt.sha256").write_text("x")
        set_aside(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000004.ckpt.aside", "00000004.ckpt.aside2"]
    assert (tmp_path / "00000004.ckpt.aside").read_text() == "first"


@pytest.mark.parametrize("place", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_in_the_place_of_a_hash_counts_as_no_hash(copied, place):
    checkpoint = copied() / "checkpoints/00000004.ckpt"
    sidecar(checkpoint).unlink()
    place(sidecar(checkpoint))
    assert find_damage(checkpoint) is None
    checkpoint.unlink()
    place(checkpoint)
    assert find_damage(checkpoint) == "it is not a file"


@pytest.mark.parametrize("damage", ["missing", "cut", "FIFO"])
def test_a_record_in_a_folder_named_by_its_images_is_written_again(tmp_path, damage):
    record = GenerationRecord(tmp_path, {"num_samples": 3}, {"batch_size": 2})
    record.write()
    whole = record.path.read_bytes()
    record.path.unlink()
    if damage != "missing":
        record.path.write_bytes(whole[:9]) if damage == "cut" else os.mkfifo(record.path)
    record.restore()
    assert record.path.read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "meaning"),
    [
        (b"", "it is an empty file"),
        (b"PK\x03\x04abc", "it is incomplete"),
        (b"\x82" * 99, "it does not begin"),
    ],
)
@pytest.mark.parametrize("read", [lambda path: Npz(str(path)).open(), read_statistics], ids=["images", "statistics"])
def test_a_damaged_file_of_numpy_is_named_without_advice_to_unpickle_it(tmp_path, content, meaning, read):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.npz.* cannot be read as an \.npz .*: {meaning}") as raised:
        read(tmp_path / "a.npz")
    assert "allow_pickle" not in str(raised.value)


def test_a_pipe_in_the_place_of_cached_features_counts_as_damaged(tmp_path, capsys):
    os.mkfifo(tmp_path / "key.npz")
    assert ReferenceCache(tmp_path).get("key") is None
    assert "cached features are damaged and will be computed again: " in capsys.readouterr().out
