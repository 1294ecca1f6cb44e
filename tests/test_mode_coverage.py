"""Modes that samples reach: real data reach as many as chance lets them, and samples of fewer modes are found out."""

import math

import numpy as np
import pytest
import torch

from ddpm.commands import evaluate, train
from ddpm.data.sources.mnist import Mnist
from ddpm.data.sources.points import Grid25, Mixture
from ddpm.data.sources.stacked_mnist import StackedMnist
from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.extractors.points import Points
from ddpm.metrics.extractors.stacked_mnist import StackedMnistClassifier
from ddpm.metrics.extractors.usual import usual
from ddpm.metrics.mode_coverage import DigitModes, PointModes
from ddpm.metrics.protocol import read_result
from ddpm.metrics.score import FeatureSet

pytestmark = pytest.mark.filterwarnings("ignore:modes of")
WITHIN = 1 - math.exp(-4.5)  # of a round Gaussian in the plane, within 3 sigma of its centre


@pytest.fixture(scope="module")
def seen_digits():
    """What the shipped classifier sees in the embedded digits."""
    pixels = torch.from_numpy(Mnist().open().pixels)[:, None].expand(-1, 3, -1, -1)
    classifier = StackedMnistClassifier()
    return torch.cat([classifier(some, ["digits"])["digits"][:, 0] for some in pixels.split(500)]).long()


def points(images):
    features = Points()(torch.from_numpy(images.pixels)[:, None].expand(-1, 3, -1, -1), ["points"])["points"]
    return FeatureSet(len(features), rows=features, labels=images.labels)


def stacks(numbers):
    """Classes 0..999 as the digits that an extractor would see."""
    return FeatureSet(len(numbers), rows=torch.stack([numbers // 100, numbers // 10 % 10, numbers % 10], 1).float())


@pytest.mark.parametrize(("make", "noise", "num"), [(Grid25, 0.02, 25), (Mixture, 0.05, 8)])
def test_real_points_reach_every_mode_and_lie_within_3_sigma_as_gaussians_do(make, noise, num):
    """10,000 points know the share to (0.989 * 0.011 / 10000)^(1/2) = 0.001. The reference has other points."""
    real, sample = (points(make(10_000, noise, seed).open()) for seed in (0, 1))
    found = PointModes()(real, sample)
    assert found["modes"] == (num, 0)
    assert PointModes()(real, sample.only(sample.labels < 7))["modes"] == (7, 0)
    error = (WITHIN * (1 - WITHIN) / 10_000) ** 0.5
    assert abs(found["within_3_sigma"].value - WITHIN) < 4 * error
    assert found["within_3_sigma"].error == pytest.approx(error, rel=0.2)


def test_a_mode_is_hit_by_one_sample_within_3_sigma_and_by_none_beyond():
    """Four points at distance d around each of two centres: sigma^2 = 8 d^2 / (2 * (8 - 2)) = 2 d^2 / 3."""
    d, centres = 0.1, torch.tensor([[-0.5, 0.0], [0.5, 0.0]])
    sigma = d * (2 / 3) ** 0.5
    cross = torch.tensor([[d, 0], [-d, 0], [0, d], [0, -d]])
    rows = (centres[:, None] + cross).flatten(0, 1)
    real = FeatureSet(8, rows=rows, labels=torch.arange(8) // 4)

    def modes_and_share(*samples):
        found = PointModes(num_resamples=0)(real, FeatureSet(len(samples), rows=torch.tensor(samples)))
        return found["modes"].value, found["within_3_sigma"].value

    assert modes_and_share([-0.5, 2.99 * sigma], [-0.5, 3.01 * sigma]) == (1, 0.5)
    assert modes_and_share([-0.5, 0.0], [0.5 + 2.99 * sigma, 0.0]) == (2, 1)


@pytest.mark.parametrize("num", [2000, 25_600])
def test_real_stacks_reach_the_modes_that_their_number_lets_them(seen_digits, num):
    """The occupied of K cells after N draws: mean K (1 - q), q = (1 - 1/K)^N; variance K q (1 - K q) + K (K - 1) r."""
    seen = seen_digits[StackedMnist(Mnist(), num).open().numbers]
    found = DigitModes()(None, FeatureSet(num, rows=seen.float()))
    q, r = 0.999**num, 0.998**num
    spread = (1000 * q * (1 - 1000 * q) + 1000 * 999 * r) ** 0.5
    assert abs(found["modes"].value - 1000 * (1 - q)) < 4 * spread + 1e-3
    if num == 25_600:  # 2 N KL has 999 degrees of freedom, so a deviation of 45
        assert found["modes"] == (1000, 0)
        assert abs(2 * num * found["kl_modes"].value - 999) < 4 * 45


def test_kl_is_that_from_1000_modes_alike():
    everyone = torch.arange(1000).repeat(3)
    for numbers, modes, kl in [
        (everyone, 1000, 0),
        (everyone[everyone < 500], 500, math.log(2)),
        (torch.tensor([0, 0, 0, 999]), 2, math.log(1000) + 0.75 * math.log(0.75) + 0.25 * math.log(0.25)),
    ]:
        found = DigitModes(num_resamples=0)(None, stacks(numbers))
        assert found["modes"] == (modes, None)
        assert found["kl_modes"].value == pytest.approx(kl, abs=1e-12)


def test_the_error_bar_is_the_spread_of_other_resamples():
    """Two modes, the second with k of 8 images: a resample misses it with probability p = (1 - k / 8)^8."""
    found = DigitModes(num_resamples=4000)(None, stacks(torch.tensor([3] * 7 + [4])))
    p = (7 / 8) ** 8
    assert found["modes"].error == pytest.approx((p * (1 - p)) ** 0.5, abs=4 * 0.5 / 4000**0.5)


def test_data_without_modes_are_refused_before_any_work():
    scores = [PointModes(), DigitModes()]
    needs = r"needs features with the layer 'points', and those of Inception have .*; choose data=.*stacked_mnist"
    with pytest.raises(ValueError, match=needs):
        Evaluator(usual("cifar10"), scores)
    no_labels = torch.full((5,), -1)
    with pytest.raises(ValueError, match=r"PointModes.* needs labels, which these real images do not have"):
        Evaluator(usual("swirl"), scores).names(no_labels, no_labels)
    with pytest.raises(ValueError, match=r"^num_resamples must be 0 or at least 2, got 1"):
        DigitModes(num_resamples=1)
    with pytest.raises(ValueError, match=r"^data.size must be \[1, 2\] for features=points.*got \[28, 28\]"):
        Points()(torch.zeros(1, 3, 28, 28, dtype=torch.uint8), ["points"])


def evaluated(config, folder, *words):
    evaluate.run_evaluate(config("evaluate", "metric=mode_coverage", "trainer=cpu", f"out={folder}", *words))
    (path,) = folder.glob("*.json")
    return read_result(path)


def test_the_command_measures_real_points_and_real_stacks(config, tmp_path, capsys):
    np.save(tmp_path / "points.npy", Grid25(2000, 0.02, 1).open().pixels)
    words = (f"images={tmp_path / 'points.npy'}", "data=grid25")
    result = evaluated(config, tmp_path / "points", *words)
    assert result.metrics["modes_points_2k"] == 25
    assert result.metrics["within_3_sigma_points_2k"] == pytest.approx(WITHIN, abs=4 * 0.0023)
    assert (result.protocol.scores["modes"], result.protocol.num_real) == ("PointModes(sigmas=3)", 10_000)
    stacked = StackedMnist(Mnist(), 300).open()
    np.save(tmp_path / "stacks.npy", np.stack([stacked.image(k) for k in range(300)]))
    words = (f"images={tmp_path / 'stacks.npy'}", "data=stacked_mnist", "data.source.num_images=300")
    result = evaluated(config, tmp_path / "stacks", *words)
    assert result.metrics["modes_stacked_mnist_300"] == pytest.approx(len(stacked.labels.unique()), abs=3)
    assert result.errors.keys() == {"modes_stacked_mnist_300", "kl_modes_stacked_mnist_300"}
    assert (result.protocol.scores["kl_modes"], result.protocol.num_real) == ("DigitModes(kl_from=uniform)", 0)


def test_a_training_logs_it_and_its_checkpoint_is_measured_alike(config, tmp_path):
    words = ("experiment=swirl", "data=grid25", "data.source.num_points=500", "trainer.max_steps=2", "logger=none")
    often = ("metric=mode_coverage", "evaluate.num_samples=40", "keep.best=eval/modes_points_40", "keep.mode=max")
    train.run_train(config("train", *words, *often, "trainer=cpu", "sampler.steps=3"))
    run = tmp_path / "run"
    assert (run / "checkpoints" / "best.ckpt").exists()
    (path,) = (run / "evaluations").glob("*.json")
    found = evaluated(config, tmp_path / "again", f"ckpt={run / 'checkpoints' / 'last.ckpt'}", "num_samples=40")
    assert found.protocol == read_result(path).protocol
    assert found.metrics == read_result(path).metrics
