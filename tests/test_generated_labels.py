"""Samples of a class-conditional model carry their labels, which the readers of data and evaluate.py use."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
from small_models import Quarters, trained
from small_runs import configured
from test_generation import die, files, in_child

from ddpm.commands import evaluate, sample
from ddpm.data.any_images import image_data
from ddpm.data.sources.folder import Folder
from ddpm.data.sources.zip import Zip
from ddpm.generation.image_writer import ImageWriter
from ddpm.generation.stores import STORES
from ddpm.metrics.protocol import read_result

pytestmark = pytest.mark.filterwarnings("ignore:(FID|FrechetDistance|PrecisionRecall|precision).* of")

CYCLE = [3, 1, 4] * 3
"""The labels of 9 samples of class=[3,1,4]."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("labels"), "cond=class", "sampler.steps=2")


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("none"), "sampler.steps=2")


@pytest.fixture
def generate(checkpoint, tmp_path):
    """`generate("a", "format=png", ...)`: what sample.py does with out=a; returns the images."""

    def generated(name, format, *overrides, num=9, ckpt=checkpoint):
        chosen = [f"ckpt={ckpt}", "trainer=cpu", f"num_samples={num}", "batch_size=2", f"format={format}"]
        sample.run_sample(configured("sample", tmp_path, *chosen, f"out={tmp_path / name}", *overrides))
        return tmp_path / name / {"npz": "samples.npz", "png": "images"}[format]

    return generated


def labels(path):
    """As evaluate.py images=PATH reads them."""
    return image_data(path).split("train").labels.tolist()


def zipped(folder):
    return shutil.make_archive(str(folder), "zip", folder)


@pytest.mark.parametrize("format", ["npz", "png"])
def test_labels_are_read_back_without_an_option(generate, format):
    assert labels(generate("a", format, "class=[3,1,4]")) == CYCLE
    assert labels(generate("b", format, "class=[3,none]")) == [3, -1] * 4 + [3], "none is a missing label"


@pytest.mark.parametrize("format", ["npz", "png"])
def test_a_folder_of_sample_py_is_its_samples_without_the_grid_of_them(generate, format):
    samples = generate("a", format, "class=[3,1,4]")
    assert (samples.parent / "grid.png").exists()
    assert image_data(samples.parent).content_hash() == image_data(samples).content_hash()
    assert labels(samples.parent) == CYCLE


def test_the_archive_has_the_labels_of_guided_diffusion(generate):
    with np.load(generate("a", "npz", "class=[3,1,4]")) as arrays:
        assert arrays.files == ["arr_0", "arr_1"]
        assert arrays["arr_1"].dtype == np.int64
        assert arrays["arr_1"].tolist() == CYCLE


def test_the_folder_has_the_labels_of_edm_and_keeps_them_in_a_zip(generate):
    images = generate("a", "png", "class=[3,1,4]")
    table = json.loads((images / "dataset.json").read_text())
    assert table == {"labels": [[f"{number:06d}.png", label] for number, label in enumerate(CYCLE)]}
    for source in (Folder(str(images)), Zip(zipped(images))):
        assert source.open().labels.tolist() == CYCLE


@pytest.mark.parametrize("format", ["npz", "png"])
def test_samples_without_a_class_have_no_labels(generate, unconditional, format):
    for images in (generate("a", format, "class=none"), generate("b", format, ckpt=unconditional)):
        assert labels(images) == [-1] * 9
        assert not list(images.parent.rglob("dataset.json"))
        assert images.is_dir() or np.load(images).files == ["arr_0"]


@pytest.mark.parametrize("format", ["npz", "png"])
def test_a_killed_generation_ends_with_the_labels_of_one_that_was_not(generate, tmp_path, monkeypatch, format):
    whole = files(generate("whole", format, "class=[3,1,4]").parent)

    def work():
        store = STORES[format]
        monkeypatch.setattr(store, "write", counted(store.write))
        generate("killed", format, "class=[3,1,4]")

    assert in_child(work) == -signal.SIGKILL
    assert files(generate("killed", format, "class=[3,1,4]").parent) == whole


def counted(write, left=5):
    def counting(self, number, image):
        nonlocal left
        left -= 1
        if left == 0:
            die()
        write(self, number, image)

    return counting


def test_samples_that_are_added_to_a_folder_have_labels(generate):
    generate("a", "png", "class=[3,1,4]", num=4)
    assert labels(generate("a", "png", "class=[3,1,4]")) == CYCLE


@pytest.mark.parametrize("format", ["npz", "png"])
def test_finished_samples_of_an_earlier_version_get_labels_and_stay_the_same(generate, monkeypatch, format):
    images = generate("a", format, "class=[3,1,4]")
    whole = files(images.parent)
    if format == "png":
        (images / "dataset.json").unlink()
    else:
        np.savez(images, np.load(images)["arr_0"])
    assert labels(images) == [-1] * 9
    monkeypatch.setattr(ImageWriter, "on_predict_batch_end", lambda *_: pytest.fail("a sample is generated again"))
    generate("a", format, "class=[3,1,4]")
    assert files(images.parent) == whole


def test_a_damaged_table_of_labels_is_written_again(generate):
    images = generate("a", "png", "class=[3,1,4]")
    whole = files(images)
    os.truncate(images / "dataset.json", 7)
    generate("a", "png", "class=[3,1,4]")
    assert files(images) == whole


@pytest.mark.parametrize("kind", ["npz", "png", "zip"])
def test_metrics_by_class_of_stored_samples_are_those_of_the_model(generate, checkpoint, tmp_path, monkeypatch, kind):
    """The same images and labels in the same batches, so the same values to the last bit."""
    monkeypatch.setattr("ddpm.metrics.extractors.usual.usual", lambda data: Quarters())
    images = generate("a", {"zip": "png"}.get(kind, kind), "class=[3,1]", num=16)
    found = []
    for subject in (
        [f"ckpt={checkpoint}", "class=[3,1]", "num_samples=16"],
        [f"images={zipped(images) if kind == 'zip' else images}", "data=digits"],
    ):
        out = tmp_path / f"results{len(found)}"
        scores = ["metric=[fid_per_class,prdc_per_class,class_accuracy]", "batch_size=2", "trainer=cpu"]
        evaluate.run_evaluate(configured("evaluate", tmp_path, *subject, *scores, f"out={out}"))
        (path,) = out.glob("*.json")
        found.append(read_result(path).metrics)
    assert "fid_of_3_quarters_16" in found[0]
    assert found[0] == found[1]
