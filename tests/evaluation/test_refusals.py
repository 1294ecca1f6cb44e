"""evaluate.py refuses what cannot be measured before it reads a checkpoint or makes an image."""

import os

import numpy as np
import pytest
from small_models import Quarters

from ddpm.commands import evaluate

WRONG = [
    ("", "ckpt or images must be given"),
    ("images=here ckpt=there", "ckpt or images must be given, and not both"),
    ("ckpt='nowhere/*.ckpt'", "ckpt must be a pattern that matches at least one file"),
    ("images={images}", "images must be compared with something"),
    ("images={images} num_repeats=2", "num_repeats has no effect on stored images"),
    ("images={images} data=digits num_samples=99", "num_samples must be"),
    ("images={images} reference={images} split=test", "split has no effect with reference"),
    ("images={images} data=digits class=3", "class has no effect on stored images"),
    ("images={images} data=digits sweep=samplers", "sweep has no effect without a model"),
    ("metric=nll", "ckpt must be given, as ckpt=latest: NegativeLogLikelihood measures a trained model"),
    ("metric=sampler_error", "choose model=oracle_gaussian, oracle_mixture or oracle_dataset"),
    ("metric=sampler_error model=oracle_mixture metric.sampler_error.steps=[5,10]", "at least three"),
    *(
        (f"metric=sampler_error {word}", f"{word.split('=')[0]} has no effect without a metric of images")
        for word in ("sweep=samplers", "num_repeats=2", "images=here")
    ),
    *(
        (f"ckpt=nowhere.ckpt sweep=samplers {words}", message)
        for words, message in (
            ("sweep.samplers=[dimm]", r"sweep.samplers must be one of .*ancestral, .*got 'dimm'; did"),
            ("sweep.steps=[10,0]", "sweep.steps must be a positive integer, got 0"),
            ("sweep.steps=[10,10]", "sweep.steps must be a list without repeats"),
            ("sweep.samplers=ddim", "sweep.samplers must be a list"),
            ("sampler=ddim", "sampler has no effect with sweep=samplers"),
            ("+sampler.steps=5", "sampler has no effect with sweep=samplers"),
            ("sweep.samplers=[ddim] variance=large", r"variance has no effect on sweep.samplers=\['ddim'\]"),
        )
    ),
    *(
        (f"ckpt=nowhere.ckpt sweep=guidance guidance=classifier_free sweep.scales={scales}", message)
        for scales, message in (
            ("[1,1]", "sweep.scales must be a list without repeats"),
            ("2", "sweep.scales must be a list"),
            ("[1,-2]", "sweep.scales must be"),
            ("[1,strong]", "sweep.scales must be"),
        )
    ),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[words or "nothing" for words, _ in WRONG])
def test_what_cannot_be_meant_is_refused_before_any_work(config, tmp_path, monkeypatch, words, message):
    monkeypatch.setattr("ddpm.metrics.extractors.usual.usual", lambda data: Quarters())
    images = tmp_path / "images.npz"
    np.savez(images, np.zeros((3, 8, 8, 1), np.uint8))
    with pytest.raises(ValueError, match=message):
        evaluate.run_evaluate(config("evaluate", "trainer=cpu", *words.format(images=images).split()))


def test_images_that_there_are_not_are_named_before_weights_are_downloaded(config, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.evaluators, "build_evaluator", None)
    (tmp_path / "empty.npz").touch()
    (tmp_path / "folder").mkdir()
    for path, message in (
        ("nowhere", "images=.*nowhere does not exist"),
        ("folder", "images=.* contains neither images"),
        ("empty.npz", r"images=.*empty\.npz cannot be read .* it is an empty file"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate.run_evaluate(config("evaluate", "trainer=cpu", f"images={tmp_path / path}", "data=digits"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fifo.npz", "is not a file; give a folder"),
        ("empty.npz", "cannot be read as an .npz file of numbers: it is an empty file"),
        ("text.zip", "cannot be read as a zip file"),
        ("loop.npz", "does not exist; give a folder"),
        ("folder", "contains neither images"),
    ],
)
def test_a_reference_that_cannot_be_read_is_named_at_once(config, tmp_path, monkeypatch, name, message):
    monkeypatch.setattr("ddpm.metrics.extractors.usual.usual", lambda data: Quarters())
    np.savez(tmp_path / "images.npz", np.zeros((3, 8, 8, 1), np.uint8))
    os.mkfifo(tmp_path / "fifo.npz")
    (tmp_path / "empty.npz").touch()
    (tmp_path / "text.zip").write_text("text")
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    (tmp_path / "folder").mkdir()
    words = ("trainer=cpu", f"images={tmp_path}/images.npz", f"reference={tmp_path / name}")
    with pytest.raises(ValueError, match=f"^reference={tmp_path / name} {message}"):
        evaluate.run_evaluate(config("evaluate", *words))
