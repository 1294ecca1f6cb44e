"""Results side by side: refused where they were not measured alike, and told apart by their error bars."""

import dataclasses
import json
import math
import re
import subprocess
import sys

import pytest
from small_results import PROTOCOL

from ddpm.base.environment import Environment
from ddpm.commands import compare
from ddpm.evaluation import comparison
from ddpm.metrics.protocol import Result, write_result
from ddpm.metrics.score import lower_is_better

A = Result(
    metrics={"fid_mnist_5k": 3.0, "is_mnist_5k": 9.0, "nearest_ratio_pixels_mnist_5k": 1.0},
    errors={"fid_mnist_5k": 0.03, "is_mnist_5k": 0.1},
    protocol=PROTOCOL,
    subject={"run": "one", "step": 1000, "sampler": {"name": "ddpm", "steps": 1000}},
    environment=Environment("cpu: x86_64", "32-true", {"torch": "2.11.0"}),
)
B = dataclasses.replace(
    A,
    metrics={"fid_mnist_5k": 3.25, "is_mnist_5k": 9.1, "nearest_ratio_pixels_mnist_5k": 1.1},
    errors={"fid_mnist_5k": 0.04, "is_mnist_5k": 0.1},
    subject={"run": "one", "step": 1000, "sampler": {"name": "ddim", "steps": 50}},
    environment=Environment("cpu: x86_64", "32-true", {"torch": "2.12.0"}, command="another"),
)

ONE, OTHER = "sampler.name=ddpm sampler.steps=1000", "sampler.name=ddim sampler.steps=50"  # names by what differs


@pytest.fixture
def run(tmp_path, capsys):
    """`run(results, *options)`: exit code, stdout and stderr of the program on files of these results."""

    def program(results, *options):
        paths = []
        for number, result in enumerate(results):
            paths.append(str(tmp_path / f"{number}.json"))
            write_result(paths[-1], result)
        return call([*paths, *options])

    def call(arguments):
        try:
            compare.main(arguments)
            code = 0
        except SystemExit as left:
            code = left.code
        return code, *capsys.readouterr()

    program.on = call
    return program


def measured(**changes):
    return dataclasses.replace(B, protocol=dataclasses.replace(PROTOCOL, **changes))


def test_the_error_of_a_difference_is_that_of_independent_values(run):
    code, out, _ = run([A, B], "--json")
    assert code == 0
    found = json.loads(out)["metrics"]["fid_mnist_5k"]
    assert found["values"] == {ONE: {"value": 3.0, "error": 0.03}, OTHER: {"value": 3.25, "error": 0.04}}
    assert found["differences"][OTHER]["difference"] == 0.25
    assert found["differences"][OTHER]["error"] == pytest.approx(math.hypot(0.03, 0.04))
    assert found["differences"][OTHER]["z"] == pytest.approx(5.0)


def test_the_verdicts(run):
    differences = {each.metric: each.verdict for each in comparison.compare_results({"a": A, "b": B})}
    assert differences == {
        "fid_mnist_5k": "higher by 5.0 standard errors, which is worse",
        "is_mnist_5k": "no difference beyond the error bars (|z| < 2)",
        "nearest_ratio_pixels_mnist_5k": "no error bars",
    }
    turned = {each.metric: each.verdict for each in comparison.compare_results({"a": B, "b": A})}
    assert turned["fid_mnist_5k"] == "lower by 5.0 standard errors, which is better"
    higher_is = dataclasses.replace(B, metrics={**B.metrics, "is_mnist_5k": 9.5})
    found = {each.metric: each.verdict for each in comparison.compare_results({"a": A, "b": higher_is})}
    assert found["is_mnist_5k"] == "higher by 3.5 standard errors, which is better"
    assert {each.verdict for each in comparison.compare_results({"a": A, "b": A})} == {"equal"}


def test_the_table_says_values_differences_and_what_differs(run):
    code, out, err = run([A, B])
    assert (code, err) == (0, "")
    assert "3.250 ± 0.040" in out
    assert "0.250 ± 0.050" in out
    assert "higher by 5.0 standard errors, which is worse" in out
    assert "fid_mnist_5k ↓" in out
    assert re.search(r"sampler.name=ddpm sampler.steps=1000 +3.000 ± 0.030 +\*\n", out)
    subject, environment = out.split("differs in what was measured:")[1].split("differs in the environment")
    assert "sampler.name" in subject
    assert "ddim" in subject
    assert "step" not in subject.replace("sampler.steps", "")  # which is the same
    assert "versions.torch" in environment
    assert "command" not in environment
    assert "2.12.0" in environment


def test_three_results_are_each_held_to_the_first_and_json_says_what_the_table_says(run):
    C = dataclasses.replace(A, subject={**A.subject, "step": 2000})
    one, other, later = (f"step={each}" for each in (f"1000 {ONE}", f"1000 {OTHER}", f"2000 {ONE}"))
    _, table, _ = run([A, B, C])
    code, out, _ = run([A, B, C], "--json")
    assert code == 0
    found = json.loads(out)
    assert found["metrics"]["fid_mnist_5k"]["differences"][other]["difference"] == 0.25
    assert found["metrics"]["fid_mnist_5k"]["differences"][later]["verdict"] == "equal"
    assert found["subject"]["sampler.name"] == {one: "ddpm", other: "ddim", later: "ddpm"}
    for of in found["metrics"].values():
        assert all(each["verdict"] in table for each in of["differences"].values())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"data_hash": "ef" * 32}, "data_hash"),
        ({"split": "test"}, "split"),
        ({"num_real": 1000}, "num_real"),
        ({"extractor_hash": "00" * 32}, "extractor_hash"),
        ({"scores": {**PROTOCOL.scores, "fid": "FrechetDistance(layer=spatial)"}}, "scores.fid"),
    ],
)
def test_results_that_were_measured_otherwise_are_refused_field_by_field(change, field, run):
    code, out, err = run([A, measured(**change)])
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert lines[0] == "error: the results have different protocols, so they cannot be compared:"
    assert len(lines) == 2
    other = change.get(field) or change["scores"]["fid"]
    assert lines[1].startswith(f"  {field}: ")
    assert f"{other!r} in {OTHER}" in lines[1]


def test_the_third_is_refused_too_and_every_field_is_named(run):
    code, _, err = run([A, B, measured(split="test", num_real=10)])
    assert code == 2
    assert f"split: 'train' in {ONE}, 'test' in {OTHER} (c)" in err
    assert f"num_real: 5000 in {ONE}, 10 in {OTHER} (c)" in err


def test_a_score_that_only_one_has_hinders_nothing(run):
    only_fid = dataclasses.replace(
        measured(scores={"fid": PROTOCOL.scores["fid"]}), metrics={"fid_mnist_5k": 3.0}, errors={}
    )
    code, out, _ = run([A, only_fid])
    assert code == 0
    assert "not compared, since not in all results: is_mnist_5k, nearest_ratio_pixels_mnist_5k" in out


def test_results_without_a_common_metric_are_refused(run):
    other = dataclasses.replace(B, metrics={"kid_mnist_5k": 1.0}, errors={})
    code, _, err = run([A, other])
    assert code == 2
    assert "error: the results have no metric in common:" in err
    assert f"{OTHER} has kid_mnist_5k" in err


def test_results_are_named_by_the_settings_of_their_runs_if_all_are_there(tmp_path):
    paths = []
    for lr in ("0.1", "0.2"):
        folder = tmp_path / lr
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints/config.yaml").write_text(f"optimizer: {{lr: {lr}}}\n")
        paths.append(folder / "evaluations/a.json")
        write_result(paths[-1], A)
    assert list(comparison.read_results(paths)) == ["optimizer.lr=0.1", "optimizer.lr=0.2"]
    (tmp_path / "0.1/checkpoints/config.yaml").unlink()
    assert list(comparison.read_results(paths)) == ["a", "b"]


def test_a_result_without_guidance_is_named_so_whatever_its_run_stores(tmp_path):
    checkpoints, evaluations = tmp_path / "run" / "checkpoints", tmp_path / "run" / "evaluations"
    checkpoints.mkdir(parents=True)
    evaluations.mkdir()
    leaf = "{_target_: ddpm.diffusion.guidance.difference.ClassifierFree, scale: 2.0}"
    (checkpoints / "config.yaml").write_text(f"guidance: {leaf}")
    paths = [evaluations / "plain.json", evaluations / "guided.json"]
    for path, guidance in zip(paths, ({}, {"guidance": "ClassifierFree(scale=2.0)"}), strict=True):
        write_result(path, dataclasses.replace(A, subject={"model": "UNet()", **guidance}))
    assert list(comparison.read_results(paths)) == ["guidance=none", "guidance=classifier_free"]


def test_arguments_that_are_no_results_are_one_error(run, tmp_path):
    write_result(tmp_path / "a.json", A)
    sound = str(tmp_path / "a.json")
    (tmp_path / "other.json").write_text("{}")
    for arguments, message in [
        ([sound], "2 to 26 results are compared, got 1"),
        ([sound, str(tmp_path), str(tmp_path / "gone")], f"these do not exist: {tmp_path}, {tmp_path / 'gone'}"),
        ([sound, str(tmp_path / "other.json")], "other.json is not a result"),
    ]:
        code, out, err = run.on(arguments)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert message in err
        assert err.count("\n") == 1


def test_it_is_a_program(tmp_path):
    for name, result in (("a", A), ("b", B)):
        write_result(tmp_path / f"{name}.json", result)
    command = [sys.executable, "-m", "ddpm", "compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fid_mnist_5k" in done.stdout


LOWER = "fid_mnist_5k fid_inf_mnist_5k sfid_inception_50k kid_inception_50k memorized_pixels_mnist_5k"
HIGHER = (
    "is_inception_50k precision_mnist_5k recall_mnist_5k density_mnist_5k coverage_mnist_5k coverage_of_3_mnist_5k "
    "coverage_worst_mnist_5k psnr_algorithm_2_500 auroc_pixel_500"
)
NEITHER = "is_std_inception_50k nearest_ratio_pixels_mnist_5k loss"


@pytest.mark.parametrize(("names", "expected"), [(LOWER, True), (HIGHER, False), (NEITHER, None)])
def test_every_score_knows_its_better_direction(names, expected):
    assert {name: lower_is_better(name) for name in names.split()} == dict.fromkeys(names.split(), expected)
