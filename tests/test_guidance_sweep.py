"""Conditional models in evaluate.py: labels of samples, scores by class, and sweep=guidance."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import QUICK, Quarters
from small_runs import configured, csv_rows

from ddpm.commands import evaluate, train
from ddpm.config import build, wiring
from ddpm.metrics.protocol import read_result
from ddpm.model.diffusion_model import DiffusionModel
from ddpm.training.module import DiffusionModule

pytestmark = pytest.mark.filterwarnings("ignore:(FID|FrechetDistance|PrecisionRecall|precision).* of")
NUM = 20
CLASSES = ("cond=class", "cond.dropout=0.3")
GUIDED = (
    "guidance=classifier_free",
    "sweep=guidance",
    "sweep.scales=[0,1,3]",
    "metric=[fid,prdc,class_accuracy]",
    "num_real=200",
)


@pytest.fixture(autouse=True)
def extractor(monkeypatch):
    monkeypatch.setattr("ddpm.metrics.extractors.usual.usual", lambda data: Quarters())


@pytest.fixture
def trained(run_of):
    return lambda *words: run_of("~callbacks.samples", "~callbacks.denoising", *words)


@pytest.fixture
def evaluated(trained, tmp_path, capsys):
    """`evaluated("class=3", of=CLASSES)`: results by their file's stem; what was printed as `evaluated.printed`."""

    def run(*overrides, of=CLASSES, num=NUM, source=None):
        checkpoint = tmp_path / f"run{len(of)}" / "checkpoints" / "last.ckpt"
        if not checkpoint.exists():
            shutil.copytree(trained(*of), checkpoint.parents[1], symlinks=True)
        run.out = tmp_path / f"results{len(list(tmp_path.glob('results*')))}"
        words = [source or f"ckpt={checkpoint}", f"num_samples={num}", "trainer=cpu", f"out={run.out}", "batch_size=8"]
        capsys.readouterr()
        evaluate.run_evaluate(configured("evaluate", tmp_path / "evaluate", *words, *overrides))
        run.printed = capsys.readouterr().out
        run.generated = checkpoint.parents[1] / "generated"
        return [read_result(path) for path in sorted(run.out.glob("*.json"))]

    return run


def rows_of(folder):
    (path,) = folder.glob("sweep_*.csv")
    return csv_rows(path), path.with_suffix(".png")


def no_image(monkeypatch):
    monkeypatch.setattr(DiffusionModel, "generate", lambda *_, **__: pytest.fail("an image was made"))


# Labels


def test_samples_take_the_classes_in_turn_and_the_result_says_so(evaluated):
    (result,) = evaluated("metric=class_accuracy")
    assert result.subject["labels"] == "classes 0 to 9, 2 each"
    assert result.protocol.scores["accuracy"] == "ClassAccuracy(layer=logits) of classes 0 to 9, 2 each"
    by_class = [result.metrics[f"accuracy_of_{label}_quarters_20"] for label in range(10)]
    assert result.metrics["accuracy_quarters_20"] == pytest.approx(np.mean(by_class))
    (path,) = evaluated.generated.glob("*/generation.json")
    assert json.loads(path.read_text())["class"] == [str(label) for label in range(10)]


def test_accuracy_is_what_the_stored_images_and_their_numbers_give(evaluated, monkeypatch):
    """Sample i was asked to be of class i modulo 10: from the pixels on the disk, by hand."""
    (result,) = evaluated("metric=class_accuracy", "num_real=200")
    (path,) = evaluated.generated.glob("*/images.rows")
    pixels = np.fromfile(path, np.uint8).reshape(NUM, -1)[:, :-1].reshape(NUM, 1, 8, 8)
    seen = Quarters()(torch.from_numpy(pixels.copy()), ["logits"])["logits"].argmax(1)
    assert result.metrics["accuracy_quarters_20"] == (seen == torch.arange(NUM) % 10).double().mean()
    no_image(monkeypatch)
    (again,) = evaluated("metric=[class_accuracy,fid]", "num_real=200")  # of images whose labels nobody stored
    assert again.metrics["accuracy_quarters_20"] == result.metrics["accuracy_quarters_20"]


def test_another_class_is_another_set_of_images(evaluated):
    for asked in ("3", "[3,7]", "none"):
        (result,) = evaluated("metric=fid", f"class={asked}")
        expected = {"3": "class 3", "[3,7]": "classes 3, 7, 10 each", "none": "no class"}[asked]
        assert result.subject["labels"] == expected
        assert result.protocol.scores["fid"] == "FrechetDistance(layer=pooled)"  # to be compared with any model's
    assert len(list(evaluated.generated.iterdir())) == 3


def test_a_folder_with_a_folder_for_each_class_is_measured_by_class(evaluated, tmp_path):
    """The same images, made elsewhere: of two classes only, which the folder would count 0 and 1."""
    (model,) = evaluated("metric=class_accuracy", "class=[3,7]")
    (rows,) = evaluated.generated.glob("*/images.rows")
    pixels = np.fromfile(rows, np.uint8).reshape(NUM, -1)[:, :-1].reshape(NUM, 8, 8)
    for number, image in enumerate(pixels):
        folder = tmp_path / "elsewhere" / "37"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:03d}.png")
    (found,) = evaluated("metric=class_accuracy", "data=digits", source=f"images={tmp_path / 'elsewhere'}")
    assert found.metrics == model.metrics


@pytest.mark.parametrize(
    ("in_training", "in_evaluation"),
    [((), ()), (("evaluate.guided=true",), ("guidance=classifier_free", "guidance.scale=3"))],
)
def test_a_guided_run_is_measured_without_guidance_unless_it_is_asked_for(
    tmp_path, evaluated, in_training, in_evaluation
):
    run, guided = tmp_path / "measured", ("guidance=classifier_free", "guidance.scale=3")
    words = ("metric=fid", "evaluate.num_samples=20", "evaluate.every_n_steps=4", "evaluate.batch_size=8")
    train.run_train(configured("train", run, *QUICK, *CLASSES, *guided, *words, *in_training))
    (found,) = [read_result(path) for path in (run / "evaluations").glob("*.json")]
    (expected,) = evaluated("metric=fid", *in_evaluation, source=f"ckpt={run}/checkpoints/last.ckpt")
    assert found.metrics == pytest.approx(expected.metrics, rel=1e-3)
    assert found.subject.get("guidance") == expected.subject.get("guidance")
    assert ("guidance" in found.subject) == bool(in_evaluation)


def test_accuracy_is_measured_while_training_as_evaluate_measures_it(tmp_path, evaluated):
    words = ("metric=class_accuracy", "evaluate.num_samples=20", "evaluate.every_n_steps=4", "evaluate.batch_size=8")
    run = tmp_path / "measured"
    train.run_train(configured("train", run, *QUICK, *CLASSES, *words))
    (found,) = [read_result(path) for path in (run / "evaluations").glob("*.json")]
    (expected,) = evaluated("metric=class_accuracy", source=f"ckpt={run}/checkpoints/last.ckpt")
    assert found.metrics == expected.metrics
    assert found.protocol == expected.protocol
    assert found.subject["labels"] == expected.subject["labels"]


@pytest.mark.parametrize(("metric", "of", "words"), [("class_accuracy", (), ()), ("cas", CLASSES, ("class=none",))])
def test_scores_by_class_of_samples_without_are_refused_before_any_image(evaluated, monkeypatch, metric, of, words):
    no_image(monkeypatch)
    with pytest.raises(ValueError, match="generated images have no requested class; choose metric=fid"):
        evaluated(f"metric={metric}", *words, of=of)


def test_every_metric_by_class_is_a_choice_of_the_command(evaluated):
    (found,) = evaluated("metric=[fid_per_class,prdc_per_class,cas]", num=60)
    assert {"fid_per_class_quarters_60", "precision_worst_quarters_60", "cas_of_real_quarters_60"} < set(found.metrics)


def test_scores_by_class_of_a_training_without_classes_are_refused_at_its_start(tmp_path, monkeypatch):
    monkeypatch.setattr(DiffusionModule, "training_step", lambda *_: pytest.fail("a step was made"))
    with pytest.raises(ValueError, match="generated images have no requested class"):
        train.run_train(configured("train", tmp_path, *QUICK, "metric=class_accuracy", "evaluate.num_samples=20"))


def test_a_classifier_of_other_classes_is_refused_before_any_image(evaluated, monkeypatch):
    monkeypatch.setattr(Quarters, "dims", {"logits": 1008})
    monkeypatch.setattr(Quarters, "__call__", lambda self, x, layers: {"logits": torch.ones(len(x), 1008)})
    no_image(monkeypatch)
    with pytest.raises(ValueError, match="have 1008 classes, and the real images have 10"):
        evaluated("metric=class_accuracy")


@pytest.mark.parametrize(
    "of", [("cond=low_res",), ("cond=attributes", "model=caption_unet_tiny")], ids=["low_res", "caption"]
)
def test_a_model_that_is_told_of_images_is_told_of_the_real_ones_in_turn(evaluated, small, monkeypatch, of):
    told, sample = {}, DiffusionModel.generate

    def spied(self, ids, weights, cond=None, images=None):
        told.update(zip(ids.tolist(), next(iter(cond.values())), strict=True))
        return sample(self, ids, weights, cond, images)

    monkeypatch.setattr(DiffusionModel, "generate", spied)
    (result,) = evaluated("metric=[fid,class_accuracy]", "num_real=12", of=of)
    config = small(*of)
    data = build.data(config)
    real = data.split("train", 12)
    images = next(real.pixels.read([real.indices])).float() / 127.5 - 1
    batch = {"image": images, "label": real.labels[real.indices]}
    (expected,) = wiring.instantiate(config.cond, "cond").of(batch).values()
    assert all(torch.equal(told[i], expected[i % 12]) for i in range(NUM))
    assert result.subject["conditions_from"] == data.content_hash("train", 12) == result.protocol.data_hash
    assert "accuracy_quarters_20" in result.metrics  # the real images' labels are the samples'


# The sweep


@pytest.fixture
def swept(trained, tmp_path, monkeypatch):
    """A sweep that was made once: its folder of results, and its run, copied for this test."""
    folder = trained(*CLASSES)
    if not (folder / "results").exists():
        words = (f"ckpt={folder}/checkpoints/last.ckpt", f"num_samples={NUM}", "trainer=cpu", "batch_size=8")
        evaluate.run_evaluate(configured("evaluate", folder / "evaluate", *words, f"out={folder}/results", *GUIDED))
    shutil.copytree(folder, tmp_path / f"run{len(CLASSES)}", symlinks=True)
    return folder / "results"


def test_a_sweep_is_a_table_a_picture_and_a_result_for_each_scale(swept):
    results = [read_result(path) for path in swept.glob("*.json")]
    rows, picture = rows_of(swept)
    assert [row["scale"] for row in rows] == ["0", "1", "3"]
    assert len(results) == 3
    guidances = sorted(result.subject["guidance"].partition(",")[0] for result in results)
    assert guidances == [f"ClassifierFree(scale={scale}" for scale in (0, 1, 3)]
    for name in ("fid_quarters_20", "precision_quarters_20", "accuracy_quarters_20"):
        assert sorted(float(row[name]) for row in rows) == sorted(result.metrics[name] for result in results)
    with Image.open(picture) as drawn:
        assert min(drawn.size) > 500


def test_scale_one_is_the_conditional_model_and_scale_zero_the_unconditional_one(swept, evaluated):
    by_scale = {row["scale"]: float(row["fid_quarters_20"]) for row in rows_of(swept)[0]}
    for scale, words in (("1", ()), ("0", ("class=none",))):
        (plain,) = evaluated("metric=fid", "num_real=200", *words)
        assert by_scale[scale] == pytest.approx(plain.metrics["fid_quarters_20"], rel=1e-9)
    assert by_scale["3"] != pytest.approx(by_scale["1"], rel=1e-4)


def test_the_same_sweep_again_and_one_of_its_scales_make_no_image(swept, evaluated, monkeypatch):
    rows, _ = rows_of(swept)
    no_image(monkeypatch)
    evaluated(*GUIDED)
    assert rows_of(evaluated.out)[0] == rows
    (best,) = [row for row in rows if row["fid_quarters_20_best"] == "true"]
    assert f"best fid_quarters_20 (lower is better): scale {best['scale']}: " in evaluated.printed
    (alone,) = evaluated("guidance=classifier_free", "guidance.scale=3", "metric=fid", "num_real=200")
    assert alone.metrics["fid_quarters_20"] == float(rows[2]["fid_quarters_20"])


@pytest.mark.parametrize(
    ("of", "words", "message"),
    [
        (CLASSES, GUIDED[1:], "sweep=guidance: this model has no guidance; choose guidance=classifier_free"),
        ((), GUIDED, "sweep=guidance: .*cond=class"),
        (("cond=class", "cond.dropout=0", "seed=0"), GUIDED, r"sweep=guidance: .*cond.dropout"),
    ],
    ids=["no guidance", "no classes", "no dropout"],
)
def test_a_model_that_cannot_be_guided_is_refused_before_any_image(evaluated, monkeypatch, of, words, message):
    no_image(monkeypatch)
    with pytest.raises(ValueError, match=message):
        evaluated(*words, of=of)
