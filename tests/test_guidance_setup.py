"""Conditional and guided models through the commands: what they store, what may not change, and what is refused."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from small_runs import SMALL, configured

from ddpm.checkpoint.reading import read_checkpoint
from ddpm.commands import sample, train
from ddpm.config import build, fitting, load

QUICK = [each for each in SMALL if not each.startswith("callbacks.")]
QUICK += ["~callbacks.samples", "~callbacks.denoising", "trainer.max_steps=2", "optimizer.warmup_steps=0"]
CLASSES = ("cond=class", "cond.dropout=0.3")
CLASSIFIER = ("model=classifier_tiny", "cond=class", "cond.dropout=0", "loss=classification", "ema.decay=0.5")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """`trained("cond=class", ...)`: the checkpoint of a run of two steps, made once."""

    @cache
    def checkpoint(*overrides):
        folder = tmp_path_factory.mktemp("run")
        quick = [each for each in QUICK if not (each.startswith("model.") and "model=classifier_tiny" in overrides)]
        train.run_train(configured("train", folder, *quick, *overrides))
        return folder / "checkpoints" / "last.ckpt"

    return checkpoint


@pytest.fixture
def drawn(tmp_path):
    """`drawn(checkpoint, "class=3", ...)`: the samples as uint8 `[N, H, W, C]`, and what the folder says of them."""

    def images(checkpoint, *overrides, num=4):
        out = tmp_path / f"samples{len(list(tmp_path.iterdir()))}"
        words = (f"ckpt={checkpoint}", "trainer=cpu", "format=npz", f"num_samples={num}", f"out={out}")
        sample.run_sample(configured("sample", tmp_path / "run", *words, *overrides))
        return np.load(out / "samples.npz")["arr_0"], json.loads((out / "generation.json").read_text()), out

    return images


# What a checkpoint knows


def test_a_checkpoint_knows_the_classes_and_their_names(trained):
    config = read_checkpoint(trained(*CLASSES))["config"]
    assert config["fitted"]["cond"]["num_classes"] == 10
    assert "num_classes" not in config["model"]  # follows from the condition
    module, _ = load.from_checkpoint(trained(*CLASSES), OmegaConf.create())
    assert module.network.label.num_embeddings == 10


def test_the_number_of_classes_may_be_left_to_the_data(small, tmp_path):
    data = build.data(small("data.num_classes=null", "cond=class"))
    assert fitting.fitted_to_data(small("data.num_classes=null", "cond=class"), data)["cond"]["num_classes"] == 10


# Nothing leaks


def test_a_model_whose_labels_are_always_hidden_is_exactly_an_unconditional_one(trained):
    plain, hidden = (read_checkpoint(trained(*words))["state_dict"] for words in ((), ("cond=class", "cond.dropout=1")))
    assert hidden.keys() - plain.keys() == {"network.label.weight", "averages.copies.0.label.weight"}
    assert all(torch.equal(hidden[key], plain[key]) for key in plain if isinstance(plain[key], torch.Tensor))


def test_a_label_changes_what_is_learned(trained):
    plain, told = (read_checkpoint(trained(*words))["state_dict"] for words in ((), ("cond=class", "cond.dropout=0")))
    assert not torch.equal(plain["network.stem.weight"], told["network.stem.weight"])


# Asking for a class


def test_samples_take_the_classes_that_are_asked_for_in_turn(trained, drawn):
    mixed, about, _ = drawn(trained(*CLASSES), "class=[3,7]")
    assert about["class"] == ["3", "7"]
    threes, _, _ = drawn(trained(*CLASSES), "class=3")
    sevens, _, _ = drawn(trained(*CLASSES), "class=7")
    np.testing.assert_allclose(mixed[::2].astype(int), threes[::2], atol=1)  # kernels round by the batch
    np.testing.assert_allclose(mixed[1::2].astype(int), sevens[1::2], atol=1)
    assert not np.array_equal(threes, sevens)


def test_all_classes_are_drawn_a_row_each(trained, drawn):
    _, about, out = drawn(trained(*CLASSES), "class=all", num=20)
    assert about["class"] == [str(k) for k in range(10)]
    picture = np.asarray(Image.open(out / "grid.png"))
    scale = 8  # 8 pixels, enlarged to 64
    assert picture.shape[0] == 10 * (8 * scale + 2) + 2
    assert picture.shape[1] > 2 * (8 * scale + 2) + 2  # the names stand before the two columns


@pytest.mark.parametrize(
    ("choice", "message"),
    [("class=10", "class must be 0 to 9"), ("class=cat", "class must be 0 to 9"), ("class=[]", "class must be all")],
)
def test_an_unknown_class_is_refused_with_the_known_ones(trained, drawn, choice, message):
    with pytest.raises(ValueError, match=message):
        drawn(trained(*CLASSES), choice)


def test_a_class_asked_of_a_model_that_knows_none_is_refused(trained, drawn):
    with pytest.raises(ValueError, match="class=3 has no effect on a model without classes"):
        drawn(trained(), "class=3")


# Guidance


def test_classifier_free_scale_one_is_the_conditional_model_and_zero_the_unconditional_one(trained, drawn):
    of = trained(*CLASSES)
    plain, _, _ = drawn(of, "class=3")
    none, _, _ = drawn(of, "class=none")
    for scale, same in ((1, plain), (0, none)):
        guided, about, _ = drawn(of, "class=3", "guidance=classifier_free", f"guidance.scale={scale}")
        assert np.array_equal(guided, same)
        assert about["guidance"]["scale"] == scale
    stronger, _, _ = drawn(of, "class=3", "guidance=classifier_free", "guidance.scale=4")
    assert not np.array_equal(stronger, plain)


def test_classifier_guidance_of_a_model_that_is_told_nothing(trained, drawn):
    classifier = trained(*CLASSIFIER)
    plain, _, _ = drawn(trained())
    words = ("guidance=classifier", f"guidance.classifier={classifier}", "class=3")
    unguided, about, _ = drawn(trained(), *words, "guidance.scale=0")
    assert np.array_equal(unguided, plain)
    assert len(about["guides_sha256"]) == 1
    guided, _, _ = drawn(trained(), *words, "guidance.scale=100")
    assert not np.array_equal(guided, plain)


@pytest.mark.parametrize("sampler", ["ddim", "dpm_solver", "heun"])
def test_classifier_guidance_goes_with_other_samplers(trained, drawn, sampler):
    words = ("guidance=classifier", f"guidance.classifier={trained(*CLASSIFIER)}", "class=3", "guidance.scale=100")
    plain, guided = (
        drawn(trained(*CLASSES), f"sampler={sampler}", "sampler.steps=3", *w)[0] for w in (["class=3"], words)
    )
    assert not np.array_equal(guided, plain)


def test_a_model_guides_itself_to_where_it_is(trained, drawn):
    of = trained(*CLASSES)
    plain, _, _ = drawn(of, "class=3")
    alike, _, _ = drawn(of, "class=3", "guidance=autoguidance", f"guidance.guide={of}", "guidance.scale=3")
    np.testing.assert_allclose(alike.astype(int), plain, atol=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["guidance=classifier_free"], "cond=class"),
        (["guidance=autoguidance"], "guidance.guide must be given"),
        (["guidance=classifier"], "guidance.classifier must be given"),
        (["guidance=classifier", "guidance.classifier={plain}"], "is not a classifier"),
        (["guidance=autoguidance", "guidance.guide={classifier}"], "is a classifier"),
        (["guidance=autoguidance", "guidance.guide={classes}"], "has ClassLabel.*, but this model has NoCondition"),
        (["guidance=autoguidance", "guidance.guide={other}"], "another schedule"),
        (["guidance=classifier_free", "guidance.order=[guidance]"], "guidance.order must be"),
    ],
)
def test_guidance_that_cannot_work_is_refused(trained, drawn, words, message):
    known = {
        "plain": trained(), "classes": trained(*CLASSES), "classifier": trained(*CLASSIFIER),
        "other": trained("schedule=linear"),
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        drawn(known["plain"], *(word.format(**known) for word in words))


def test_a_classifier_makes_no_images(trained, drawn):
    with pytest.raises(ValueError, match="is a classifier, which generates no images"):
        drawn(trained(*CLASSIFIER))


# A classifier


def test_a_classifier_logs_its_accuracy_in_bands_of_time(tmp_path):
    quick = [each for each in QUICK if not each.startswith(("model.", "logger"))]
    words = ("logger=csv", "data.num_val=100", "callbacks.timestep_loss.num_bands=2")
    train.run_train(configured("train", tmp_path, *quick, *CLASSIFIER, *words))
    header, *_ = (tmp_path / "metrics.csv").read_text().splitlines()
    for name in ("train/part/accuracy", "train/accuracy_t/0001-0500", "train/accuracy_t/0501-1000"):
        assert name in header.split(",")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cond.dropout=0.1"], "cond.dropout must be 0 with loss=classification"),
        (["callbacks.samples.num_samples=4"], "callbacks.samples needs images, but a classifier generates none"),
        (["cond=none"], "model.num_classes must be the number of classes, which cond=class sets, got None"),
        (["loss=simple"], "loss=SimpleLoss does not train model=Classifier: it is a classifier, .*loss=classification"),
        (["model=unet_tiny"], "loss=classification needs a classifier"),
    ],
)
def test_a_classifier_that_cannot_be_trained_is_refused(tmp_path, words, message):
    quick = [each for each in QUICK if not each.startswith("model.") and "samples" not in each]
    classifier = [each for each in CLASSIFIER if not (words == ["cond=none"] and each.startswith("cond"))]
    if "callbacks.samples.num_samples=4" not in words:
        quick.append("~callbacks.samples")
    with pytest.raises(ValueError, match=message):
        train.run_train(configured("train", tmp_path, *quick, *classifier, *words))


# Tasks


def test_a_task_tells_a_conditional_model_the_class_that_is_asked_for_and_else_nothing(trained, tmp_path):
    def denoised(*words):
        out = tmp_path / "-".join(("out", *words)).replace("=", "")
        settings = (f"ckpt={trained(*CLASSES)}", "trainer=cpu", "task=denoise", "task.images=[5]", f"out={out}")
        sample.run_sample(configured("sample", tmp_path / "run", *settings, *words))
        return dict(np.load(out / "denoise.npz"))

    nothing, three, seven = denoised(), denoised("class=3"), denoised("class=7")
    changed = [name for name in nothing if not np.array_equal(three[name], seven[name])]
    assert changed
    assert all(np.array_equal(nothing[name], denoised("class=none")[name]) for name in nothing)
    guided, three = denoised("class=3", "guidance=classifier_free"), denoised("class=3")
    assert not all(np.array_equal(guided[name], three[name]) for name in three)
    for words in ((), ("class=none",)):
        with pytest.raises(
            ValueError, match=r"^guidance has no effect on a task without a class or prompt: add class="
        ):
            denoised("guidance=classifier_free", *words)


def test_a_model_that_was_never_told_a_class_is_asked_for_none(trained, drawn):
    never = trained("cond=class", "cond.dropout=1")
    _, about, _ = drawn(never)
    assert about["class"] == ["none"]
    with pytest.raises(ValueError, match="class=3 has no effect on a model that was trained without labels"):
        drawn(never, "class=3")
