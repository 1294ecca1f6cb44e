"""A number and how it was made, in one file."""

import dataclasses
import json
import os

import pytest
from small_results import PROTOCOL

import ddpm
from ddpm.base import atomic
from ddpm.base.environment import Environment, device_name, library_versions
from ddpm.metrics.protocol import (
    Result,
    read_result,
    result_name,
    write_result,
)
from ddpm.metrics.score import Estimate

ESTIMATES = {"fid_mnist_5k": Estimate(12.345678901234567, 0.1), "is_mnist_5k": Estimate(9.46)}
RESULT = Result.of(
    ESTIMATES,
    protocol=PROTOCOL,
    subject={"run": "cifar", "step": 10_000, "sampler": {"name": "ddim", "steps": 50}, "seed": 0},
    environment=Environment(device_name("cpu"), "32-true"),
)


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "new folder" / "result.json"
    write_result(path, RESULT)
    found = read_result(path)
    assert found == RESULT
    assert found.estimates == ESTIMATES
    assert found.errors == {"fid_mnist_5k": 0.1}  # none is made up for the score that has none
    assert json.loads(path.read_text())["environment"]["versions"]["ddpm"] == ddpm.__version__
    assert [each.name for each in path.parent.iterdir()] == ["result.json"]


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_result(path, RESULT)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        write_result(path, dataclasses.replace(RESULT, metrics={"fid_mnist_5k": 1.0}))
    assert read_result(path) == RESULT
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_usual_permissions(tmp_path):
    atomic.write_atomically(tmp_path / "ours", b"")
    (tmp_path / "usual").write_bytes(b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["metrics", "errors"])
def test_values_that_are_not_finite_are_not_stored(part, value):
    with pytest.raises(ValueError, match="fid_mnist_5k must be finite"):
        dataclasses.replace(RESULT, **{part: {"fid_mnist_5k": value}})


def test_a_file_of_values_that_are_not_finite_is_refused(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(dataclasses.asdict(RESULT)).replace("9.46", "NaN"))
    with pytest.raises(ValueError, match="is_mnist_5k must be finite"):
        read_result(path)


@pytest.mark.parametrize("text", ["{", "[]", "5", '{"metrics": {}}', "\xff"])
def test_a_file_of_another_kind_is_refused_by_name(text, tmp_path):
    path = tmp_path / "result.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"result\.json is not a result"):
        read_result(path)


@pytest.mark.parametrize(("part", "lacks"), [("protocol", "split"), ("environment", "precision")])
def test_other_fields_are_refused_by_their_names(part, lacks, tmp_path):
    path = tmp_path / "result.json"
    stored = dataclasses.asdict(RESULT)
    del stored[part][lacks]
    stored[part]["guidance"] = 2
    path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=rf"another {part} .*missing \['{lacks}'\], unknown \['guidance'\]"):
        read_result(path)


@pytest.mark.parametrize(
    ("field", "value"), [("num_generated", 0), ("num_real", -1), ("split", ""), ("data", None), ("data_hash", "")]
)
def test_a_protocol_with_a_hole_is_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must be"):
        dataclasses.replace(PROTOCOL, **{field: value})


def test_results_of_another_sampler_seed_or_reference_have_other_names():
    others = [
        dataclasses.replace(RESULT, subject={**RESULT.subject, "sampler": {"name": "ddim", "steps": 100}}),
        dataclasses.replace(RESULT, subject={**RESULT.subject, "seed": 1}),
        dataclasses.replace(RESULT, protocol=dataclasses.replace(PROTOCOL, data_hash="ef" * 32)),
    ]
    names = {result_name(each) for each in (RESULT, *others)}
    assert len(names) == 4
    assert all(name.startswith("00010000_fid_mnist_5k_") for name in names)
    elsewhere = dataclasses.replace(RESULT, subject={"run": "theirs", "images": "theirs"})
    assert result_name(elsewhere).startswith("theirs_fid_mnist_5k_")


def test_the_versions_name_what_measures():
    assert {"ddpm", "python", "torch", "torchmetrics", "torch-fidelity"} <= set(library_versions())
