"""A number and how it was made, in one file."""

import dataclasses
import json
import os

import pytest

import ddpm
from ddpm import atomic
from ddpm.metrics.protocol import EvaluationProtocol, device_name, library_versions, read_result, write_result

PROTOCOL = EvaluationProtocol(
    num_generated=5000,
    num_real=60_000,
    preprocessing="uint8",
    extractor="inception",
    extractor_hash="ab" * 32,
    data="cifar10",
    split="train",
    data_hash="cd" * 32,
    sampler="ddim",
    steps=50,
    seed=0,
    weights="ema 0.9999",
    device=device_name("cpu"),
    precision="32-true",
)
METRICS = {"fid_inception_5k": 12.345678901234567, "is_inception_5k": 9.46}


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "new folder" / "metrics.json"
    write_result(path, METRICS, PROTOCOL)
    assert read_result(path) == (METRICS, PROTOCOL)
    assert json.loads(path.read_text())["protocol"]["versions"]["ddpm"] == ddpm.__version__
    assert [each.name for each in path.parent.iterdir()] == ["metrics.json"]


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    write_result(path, METRICS, PROTOCOL)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        write_result(path, {"fid_inception_5k": 1.0}, PROTOCOL)
    assert read_result(path).metrics == METRICS
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_usual_permissions(tmp_path):
    atomic.write_whole(tmp_path / "ours", b"")
    (tmp_path / "usual").write_bytes(b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_values_that_are_not_finite_are_not_stored(tmp_path):
    with pytest.raises(ValueError, match="fid_inception_5k must be finite"):
        write_result(tmp_path / "metrics.json", {"fid_inception_5k": float("nan")}, PROTOCOL)
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_kind_is_refused_by_name(tmp_path):
    path = tmp_path / "metrics.json"
    for text in ("{", "[]", '{"metrics": {}}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"metrics\.json is not a result"):
            read_result(path)
    stored = dataclasses.asdict(PROTOCOL)
    del stored["sampler"]
    path.write_text(json.dumps({"metrics": {}, "protocol": stored | {"guidance": 2}}))
    with pytest.raises(ValueError, match=r"missing \['sampler'\], unknown \['guidance'\]"):
        read_result(path)


@pytest.mark.parametrize(
    ("field", "value"), [("num_generated", 0), ("num_real", -1), ("steps", "50"), ("seed", 1.5), ("data_hash", "")]
)
def test_a_protocol_with_a_hole_is_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must be"):
        dataclasses.replace(PROTOCOL, **{field: value})


def test_the_versions_name_what_measures():
    assert {"ddpm", "python", "torch", "torchmetrics", "torch-fidelity"} <= set(library_versions())
