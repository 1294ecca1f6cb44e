"""Names of classes are text, whatever they look like: nothing evaluates them, in any file, command or logger."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf
from PIL import Image
from small_runs import ROOT, SMALL, configured

from ddpm.base.plots import save_figure
from ddpm.checkpoint.reading import read_checkpoint
from ddpm.commands import evaluate, export, sample, train
from ddpm.config import build, load
from ddpm.evaluation.curves import curves_over_training
from ddpm.metrics.score import Estimate
from ddpm.runs import run_folder
from ddpm.runs.portable import to_portable

NAMES = ["${oc.env:SECRET}", "${seed}", "???", "[bold]", "a${b", "null"]  # in the order of sorted folders
CLASSES = ("cond=class", "data.size=8", "data.channels=1", "data.num_workers=0", "data.batch_size=6")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run, runs/mine, on a folder whose classes have these names."""
    place = tmp_path_factory.mktemp("named")
    for number, name in enumerate(sorted(NAMES)):
        (place / "images" / name).mkdir(parents=True)
        Image.fromarray(np.full((8, 8), 40 * number, np.uint8)).save(place / "images" / name / "0.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET", "leaked")
        train.run_train(configured("train", place / "runs" / "mine", *words_of(place)))
    return place


def words_of(place):
    words = [
        "experiment=mnist",
        *SMALL,
        "data=folder",
        f"data.source.root={place / 'images'}",
        *CLASSES,
        "logger=wandb",
    ]
    return [word for word in words if word not in ("data=digits", "logger=none", "data.batch_size=16")]


@pytest.fixture
def trained(place, monkeypatch):
    """The run's folder, and the words that it was trained with."""
    monkeypatch.setenv("SECRET", "leaked")
    monkeypatch.chdir(place)
    return place / "runs" / "mine", words_of(place)


def test_names_of_classes_stay_text_in_every_file_of_a_run(trained, place):
    folder, _ = trained
    stored = read_checkpoint(folder / "checkpoints" / "last.ckpt")["config"]
    assert stored["fitted"]["cond"] == {"num_classes": 6, "names": sorted(NAMES)}
    assert yaml.safe_load((folder / "checkpoints" / "config.yaml").read_text()) == stored
    assert not any(b"leaked" in path.read_bytes() for path in place.rglob("*") if path.is_file())


def test_a_class_is_asked_for_by_such_a_name_and_kept_on_resuming_and_exporting(trained, config, capsys):
    folder, words = trained
    ckpt = folder / "checkpoints" / "last.ckpt"
    export.run_export(
        OmegaConf.create({"ckpt": str(ckpt), "format": "safetensors", "weights": "best", "out": "exported"})
    )
    for path in (ckpt, Path("exported")):
        module, _ = load.from_checkpoint(path, OmegaConf.create())
        assert list(module.condition.names) == sorted(NAMES)
    made = config(
        "sample", f"ckpt={ckpt}", "trainer=cpu", "num_samples=1", "format=png", "out=o", "class='\\${oc.env:SECRET}'"
    )
    sample.run_sample(made)
    assert json.loads(Path("o/generation.json").read_text())["class"] == ["${oc.env:SECRET}"]
    overrides = [*words, "resume=auto"]
    assert run_folder.add_run_folder(overrides, ROOT / "conf")[-1] == "hydra.run.dir=runs/mine"
    train.run_train(config("train", *words, "resume.path=auto", f"run_dir={folder}"))
    assert "nothing is left to train" in capsys.readouterr().out


def test_a_checkpoint_that_keeps_names_among_its_settings_reads_them_as_text(trained, tmp_path):
    import torch

    stored = torch.load(trained[0] / "checkpoints" / "last.ckpt", weights_only=True)
    stored["config"]["cond"] |= stored["config"].pop("fitted")["cond"]
    stored["config"]["data"]["name"] = "${oc.env:SECRET}"
    torch.save(stored, tmp_path / "older.ckpt")
    module, config = load.from_checkpoint(tmp_path / "older.ckpt", OmegaConf.create())
    assert list(module.condition.names) == sorted(NAMES)
    assert config.data.name == "${oc.env:SECRET}"
    assert build.data(config).name == "${oc.env:SECRET}"


def test_what_could_not_be_read_again_is_refused_before_training(small):
    with pytest.raises(ValueError, match=r"this run has more than a reference to itself at name"):
        to_portable(small("name='a\\${b'"))


def test_a_file_in_a_folder_named_like_a_pattern_or_a_formula_is_that_file(config, tmp_path):
    path = tmp_path / "[x]" / "checkpoints" / "00000001.ckpt"
    path.parent.mkdir(parents=True)
    path.touch()
    assert evaluate.checkpoint_paths(config("evaluate", f"ckpt='{path}'"), []) == [path]
    names = [f"$x_{{${run}/{step}" for run in "ab" for step in (1, 2)]
    results = {
        n: SimpleNamespace(metrics=["fid"], estimates={"fid": Estimate(1.0)}, subject={"step": int(n[-1])})
        for n in names
    }
    save_figure(curves_over_training(results, {n: n.rpartition("/")[0] for n in results}), tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size > (0, 0)
