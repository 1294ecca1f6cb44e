"""The classifiers that are shipped with the package: digits and CIFAR-10, and the program that trains the second."""

import hashlib
import io
import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors
import torch
from hydra.utils import instantiate
from PIL import Image
from precision import assert_rounded
from small_runs import ROOT
from torch import nn

from ddpm.data.decode import Decoder
from ddpm.data.images import Preparation
from ddpm.data.order import choose_subset
from ddpm.data.sources.mnist import Mnist
from ddpm.data.sources.parquet import Parquet
from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.extractors.cifar10 import Cifar10Classifier
from ddpm.metrics.extractors.inception import Inception
from ddpm.metrics.extractors.mnist import MnistClassifier
from ddpm.metrics.fid import FrechetDistance

EVERY = pytest.mark.parametrize("kind", [MnistClassifier, Cifar10Classifier])
CIFAR10_TEST = os.environ.get("DDPM_CIFAR10_TEST")
"""The test split in Parquet: a file, a folder or a pattern."""


def noise(n, size):
    return torch.randint(256, (n, 3, size, size), generator=torch.Generator().manual_seed(n), dtype=torch.uint8)


def stored_right(file):
    with safetensors.safe_open(file, "pt") as opened:
        return int(opened.metadata()["held_out_right"].split()[0])


@pytest.fixture(scope="module")
def digits():
    """All digits as uint8 `[5000, 1, 28, 28]`, their labels, and the numbers of the 1,000 that were held out."""
    images = Mnist().open()
    return torch.from_numpy(images.pixels)[:, None], images.labels, choose_subset(len(images), 1000)


@EVERY
def test_a_classifier_is_a_small_file_with_its_hash(kind):
    assert kind.file.stat().st_size <= 1_000_000
    assert kind().weights_hash == hashlib.sha256(kind.file.read_bytes()).hexdigest()


@EVERY
def test_features_are_float32_and_the_same_in_any_batch(kind):
    extractor, pixels = kind(), noise(16, 32)
    layers = extractor(pixels, extractor.dims)
    shapes = {layer: (features.dtype, features.shape) for layer, features in layers.items()}
    assert shapes == {layer: (torch.float32, (16, width)) for layer, width in extractor.dims.items()}
    again = kind()(pixels, extractor.dims)
    for layer, features in layers.items():
        assert torch.equal(features, again[layer])
        one_by_one = torch.cat([extractor(image[None], [layer])[layer] for image in pixels[:8]])
        assert_rounded(one_by_one, features[:8], 50)  # up to 10 layers, sums of up to 1,152 products
        assert (features[0] - features[1]).abs().max() > 0.01  # else it would compare constants


@EVERY
def test_an_enlarged_image_has_the_features_of_what_it_is_reduced_to(kind):
    extractor, pixels = kind(), noise(4, 64)
    side = kind.prepare(pixels).shape[-1]
    reduced = nn.functional.interpolate(pixels.float(), size=(side, side), mode="bilinear", antialias=True)
    expected = extractor(reduced, ["pooled"])["pooled"]  # not rounded to 8 bits
    assert_rounded(extractor(pixels, ["pooled"])["pooled"], expected, 100)


def test_the_digit_classifier_knows_digits_that_it_was_not_trained_on(digits):
    pixels, labels, held_out = digits
    logits = MnistClassifier()(pixels[held_out], ["logits"])["logits"]
    right = (logits.argmax(1) == labels[held_out]).sum().item()
    assert right > 980  # of 1,000: a standard error of 0.4 % at 98 %
    assert abs(stored_right(MnistClassifier.file) - right) <= 1  # kernels differ between machines


def test_features_of_digits_are_the_same_in_grey_and_rgb(digits):
    extractor, pixels = MnistClassifier(), digits[0][:64]
    grey, in_colour = (extractor(each, extractor.dims) for each in (pixels, pixels.expand(-1, 3, -1, -1)))
    for layer in extractor.dims:
        assert torch.equal(grey[layer], in_colour[layer])


def test_digits_of_another_size_are_still_known(digits):
    pixels, labels, held_out = digits
    large = nn.functional.interpolate(pixels[held_out[:200]].float(), size=(64, 64), mode="bilinear").round().byte()
    logits = MnistClassifier()(large, ["logits"])["logits"]
    assert (logits.argmax(1) == labels[held_out[:200]]).sum() >= 190


def test_no_feature_of_digits_is_a_function_of_the_others(digits):
    assert_independent(MnistClassifier()(digits[0][::4], ["pooled", "spatial"]))


def assert_independent(features):
    for layer, values in features.items():
        eigenvalues = torch.linalg.eigvalsh(values.double().T.cov())
        assert eigenvalues[0] > 1e-8 * eigenvalues[-1], layer


def test_cifar10_is_in_the_names_of_its_values_and_inception_stays_the_default_for_the_data(config):
    chosen = config("evaluate", "ckpt=x", "metric=fid", "features=cifar10").features
    names = Evaluator(instantiate(chosen), [FrechetDistance()]).names(torch.full((300,), -1), torch.full((200,), -1))
    assert names == ["fid_cifar10_200"]
    usual = instantiate(config("evaluate", "ckpt=x", "metric=fid").features)
    assert isinstance(usual("cifar10"), Inception)


def test_the_cifar10_classifier_computes_in_float32_and_is_right_on_85_percent():
    extractor = Cifar10Classifier().to("cpu")
    assert {each.dtype for each in extractor._network[0].parameters()} == {torch.float32}
    assert stored_right(Cifar10Classifier.file) >= 8500


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10_TEST, reason="set DDPM_CIFAR10_TEST to the test split of CIFAR-10 in Parquet")
def test_the_cifar10_classifier_is_as_good_as_its_file_says():
    images = Parquet(CIFAR10_TEST).open()
    pixels, _ = Decoder(images, Preparation(3, (32, 32))).decoded(list(range(len(images))))
    extractor = Cifar10Classifier()
    batches = [extractor(some, extractor.dims) for some in pixels.split(500)]
    found = {layer: torch.cat([batch[layer] for batch in batches]) for layer in extractor.dims}
    right = (found["logits"].argmax(1) == images.labels).sum().item()
    assert len(images) == 10_000
    assert abs(stored_right(Cifar10Classifier.file) - right) <= 5  # kernels differ between machines
    assert_independent({layer: found[layer] for layer in ("pooled", "spatial")})


@pytest.fixture
def training(monkeypatch):
    """The program with a short training."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    import train_cifar_features

    monkeypatch.setattr(train_cifar_features, "NUM_EPOCHS", 16)
    monkeypatch.setattr(train_cifar_features, "BATCH_SIZE", 32)
    return train_cifar_features


def split_of_colours(path, n, num_classes=10):
    """n noisy images whose class is their colour, in a file as of the Hugging Face hub."""
    make = torch.Generator().manual_seed(n)
    labels = torch.arange(n) % num_classes
    colours = 255 * torch.rand(10, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    pixels = (colours[labels] + 10 * torch.randn(n, 3, 32, 32, generator=make)).clamp(0, 255).byte()
    images = []
    for image in pixels.permute(0, 2, 3, 1).numpy():
        Image.fromarray(image).save(buffer := io.BytesIO(), "PNG")
        images.append({"bytes": buffer.getvalue(), "path": "image.png"})
    pq.write_table(pa.table({"img": images, "label": labels.numpy()}), path)
    return str(path)


def test_the_program_trains_a_classifier_and_stores_how_good_it_is(training, tmp_path, monkeypatch, capsys):
    splits = split_of_colours(tmp_path / "train.parquet", 160), split_of_colours(tmp_path / "test.parquet", 100)
    file = tmp_path / "mine.safetensors"
    monkeypatch.setattr(sys, "argv", ["train_cifar_features.py", *splits, str(file)])
    training.main()
    pixels, labels = training.pictures(splits[1])
    monkeypatch.setattr(Cifar10Classifier, "file", file)
    right = (Cifar10Classifier()(pixels, ["logits"])["logits"].argmax(1) == labels).sum().item()
    assert right >= 95  # the classes are far apart; a short training leaves its averages a little behind
    assert right == stored_right(file)
    assert f"{right} of 100 held-out images right" in capsys.readouterr().out
    assert file.stat().st_size <= 1_000_000


def test_the_program_refuses_data_of_other_classes(training, tmp_path):
    path = split_of_colours(tmp_path / "train.parquet", 12, num_classes=3)
    with pytest.raises(ValueError, match=r"train.parquet must have the ten classes 0 to 9 .*, got \[0, 1, 2\]; give"):
        training.pictures(path)


def test_images_are_mirrored_and_shifted_by_two_pixels_at_most(training):
    """Pixels near the middle have different values, so the middle of a result tells where it was."""
    rows, columns = torch.arange(32)[:, None], torch.arange(32)
    pixels = (6 * rows + columns).to(torch.uint8).expand(400, 3, 32, 32)
    moved = (training.moved(pixels, torch.Generator().manual_seed(0)) + 1) * 127.5
    middle, step = moved[:, 0, 16, 16].round(), (moved[:, 0, 16, 17] - moved[:, 0, 16, 16]).round()
    shifts = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
    upright = {(6.0 * (16 + y) + 16 + x, 1.0) for y, x in shifts}
    mirrored = {(6.0 * (16 + y) + 15 + x, -1.0) for y, x in shifts}
    assert set(zip(middle.tolist(), step.tolist(), strict=True)) == upright | mirrored
