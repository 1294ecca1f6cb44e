"""Paths of a run: stored absolute, and every field of a model takes what ckpt= takes."""

import re
import shutil

import pytest
from omegaconf import OmegaConf
from PIL import Image
from small_runs import ROOT

from ddpm.checkpoint import groups
from ddpm.commands.evaluate import checkpoint_paths, holds_model
from ddpm.config.checkpoint_path import checkpoint_path, fetch_checkpoints, is_pattern
from ddpm.config.load import guide
from ddpm.runs.portable import PATHS, to_portable, with_absolute_paths
from ddpm.runs.resume import setting_differences

CONF = ROOT / "conf"
CLASSIFIER = (
    *("model=classifier_tiny", "model.head_channels=16", "cond=class", "cond.dropout=0", "loss=classification"),
    *("callbacks.samples=null", "callbacks.denoising=null"),
)


def test_a_relative_root_is_stored_absolute_and_equals_the_one_as_typed(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "images/0.png")
    made = config("train", "data=folder", "data.source.root=images")
    stored = to_portable(made)
    assert stored["data"]["source"]["root"] == str(tmp_path / "images")
    typed = OmegaConf.to_container(made, resolve=False)
    earlier = stored | {"data": stored["data"] | {"source": typed["data"]["source"]}}
    assert earlier["data"]["source"]["root"] == "images"
    assert not setting_differences(earlier, stored, data_is_read=False)


def test_every_field_of_a_path_is_made_absolute_and_other_names_are_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    places = {
        "data": {"source": {"path": "there/*.tar"}, "test_source": {"root": "${data.source.root}"}, "name": "there"},
        "codec": {"first_stage": "there", "weights": "best"},
        "text": {"path": "google/t5", "tokenizer": "there"},
        "guidance": {"guide": "there", "classifier": "latest"},
        "perceptual": {"weights": "there"},
        "features": {"weights": "there"},
        "metric": {"cas": {"weights": "there"}, "anomaly": {"anomalies": {"root": "there"}}},
    }
    there = str(tmp_path / "there")
    assert with_absolute_paths(places) == {
        "data": {"source": {"path": f"{there}/*.tar"}, "test_source": {"root": "${data.source.root}"}, "name": "there"},
        "codec": {"first_stage": there, "weights": "best"},
        "text": {"path": "google/t5", "tokenizer": there},
        "guidance": {"guide": there, "classifier": "latest"},
        "perceptual": {"weights": there},
        "features": {"weights": there},
        "metric": {"cas": {"weights": there}, "anomaly": {"anomalies": {"root": there}}},
    }


@pytest.mark.parametrize("name", ["FOLDER", "FOLDER/checkpoints", "latest", "run*/mi?e", "FOLDER/checkpoints/la*.ckpt"])
def test_any_field_of_a_model_takes_a_run_a_pattern_and_latest(name, copied, tmp_path, monkeypatch):
    folder = copied(to="runs/mine")
    monkeypatch.chdir(tmp_path)
    found = checkpoint_path(name.replace("FOLDER", str(folder)), "guidance.guide")
    assert found.resolve() == (folder / "checkpoints/last.ckpt").resolve()


def test_a_pattern_of_several_paths_or_none_is_one_error_that_names_the_field(copied, tmp_path, monkeypatch):
    folder = copied(to="runs/mine")
    shutil.copytree(folder, tmp_path / "runs/mine2", symlinks=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^guidance.guide must match one path, .* matches 2; it matches runs/mine, "):
        checkpoint_path("runs/*", "guidance.guide")
    with pytest.raises(ValueError, match=r"^guidance.guide must match one path, and 'x\*' matches 0$"):
        checkpoint_path("x*", "guidance.guide")


def test_an_existing_path_with_brackets_is_that_path(copied, tmp_path, monkeypatch):
    copied(to="runs/m[a]")
    monkeypatch.chdir(tmp_path)
    assert not is_pattern("runs/m[a]")
    assert checkpoint_path("runs/m[a]").parent.parent.name == "m[a]"


@pytest.mark.parametrize("field", ["guidance.classifier", "codec.first_stage"])
def test_an_error_of_a_guide_names_its_field(field, tmp_path):
    with pytest.raises(ValueError, match=f"^{field} must be a checkpoint file"):
        guide(tmp_path / "none.ckpt", field=field)
    (tmp_path / "text.ckpt").write_text("text")
    with pytest.raises(ValueError, match=f"^{field}=.*text.ckpt cannot be read as data: it is a text file"):
        guide(tmp_path / "text.ckpt", field=field)


def test_a_run_of_another_kind_that_a_pattern_matches_is_named_and_passed_over(run_of, capsys):
    of_images, classifier = (checkpoint_path(str(run_of(*words))) for words in ((), CLASSIFIER))
    capsys.readouterr()
    assert holds_model(of_images, needs_samples=True)
    assert capsys.readouterr().out == ""
    assert not holds_model(classifier, needs_samples=True)
    assert f"passed over: ckpt={classifier} is a classifier, " in capsys.readouterr().out


def test_what_a_pattern_matches_beside_models_is_named_and_passed_over(config, copied, tmp_path, monkeypatch, capsys):
    copied(to="runs/mine")
    (tmp_path / "runs/sweep/0").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    made = config("evaluate", "ckpt='runs/[ms]*'", "metric=fid")
    assert [path.name for path in checkpoint_paths(made, [])] == ["00000004.ckpt"]
    assert "passed over: ckpt=runs/sweep is a folder without a model" in capsys.readouterr().out
    (tmp_path / "runs/loop").symlink_to("loop")
    with pytest.raises(ValueError, match="there is none at 'runs/loop'"):
        checkpoint_paths(config("evaluate", "ckpt='runs/*'", "metric=fid"), [])


@pytest.mark.parametrize("group", [name for name in groups.group_names(stored=True) if (CONF / name).is_dir()])
def test_every_field_whose_comment_speaks_of_a_file_is_stored_absolute(group):
    """The comments in conf/ tell which fields name a file, a folder or a checkpoint."""
    for path in sorted((CONF / group).glob("*.yaml")):
        place = [group]
        for line in path.read_text().splitlines():
            found = re.match(r"( *)(\w+):(?: +(\?\?\?|null|[\w/.-]+))?(?: +#(.*))?$", line)
            if not found or line.startswith("defaults"):
                continue
            indent, name, value, comment = found.groups()
            place = [*place[: 1 + len(indent) // 2], name]
            names_one = re.search(r"\b(file|folder|checkpoint)\b", comment or "") or name in ("root", "path")
            if value and not re.fullmatch(r"[\d.]+|true|false", value) and names_one and name not in NO_PATHS:
                assert PATHS.fullmatch(".".join(place)), f"{path}: {line}"


NO_PATHS = (
    *("sha256", "layout", "labels", "test_source", "image_column", "scale", "name", "white", "crop", "on_broken"),
    "weights",
)
"""Fields whose comments speak of a file that another field names; `perceptual.weights` is in the test above."""


@pytest.mark.parametrize("field", ["guidance.classifier", "guidance.guide", "codec.first_stage", "task.base"])
def test_latest_is_stored_as_the_checkpoint_that_it_is_now(field, copied, tmp_path, monkeypatch):
    folder = copied(to="runs/mine")
    monkeypatch.chdir(tmp_path)
    real = str((folder / "checkpoints/last.ckpt").resolve())
    for typed in ("latest", "runs/mine", "runs/m*", "runs/mine/checkpoints/last.ckpt"):
        config = OmegaConf.create()
        OmegaConf.update(config, field, typed, force_add=True)
        assert OmegaConf.select(fetch_checkpoints(config), field) == real
    config = OmegaConf.create({"ckpt": "runs/*"})
    assert fetch_checkpoints(config).ckpt == "runs/*"
