"""evaluate.py from a checkpoint to a JSON file, with a small extractor in Inception's place."""

import pytest
import torch

from ddpm import evaluate, train
from ddpm.metrics import suites
from ddpm.metrics.protocol import read_result


class MeanAndCorners:
    """Four numbers of an image as features and as class scores."""

    dims = {"pooled": 4, "logits": 4}  # noqa: RUF012
    preprocessing = "uint8"
    name = "corners"
    weights_hash = "0" * 64

    def __init__(self, weights=None):
        pass

    def to(self, device):
        return self

    def __call__(self, pixels):
        x = pixels.double() / 255
        corners = torch.stack([x.mean((1, 2, 3)), x[:, 0, 1, 2], x[:, 0, 4, 4], x[:, 0, 6, 3]], 1).float()
        return {"pooled": corners, "logits": corners}


@pytest.fixture
def checkpoint(small, tmp_path):
    config = small("logger=csv")
    train.run(config)
    return tmp_path / "run" / "checkpoints" / "last.ckpt"


@pytest.mark.filterwarnings("ignore:(FID|IS) of")
def test_a_score_is_printed_and_stored_with_its_protocol(checkpoint, config, monkeypatch, capsys):
    monkeypatch.setattr(suites, "Inception", MeanAndCorners)

    def scored(*overrides):
        made = config("evaluate", f"ckpt={checkpoint}", "metric=fid_is", "num_samples=33", "trainer=cpu", *overrides)
        evaluate.run(made)
        return read_result(checkpoint.with_name("last.fid_is_corners_33.json"))

    one = scored("batch_size=33")
    printed = capsys.readouterr().out
    other = scored("batch_size=4")
    assert set(one.metrics) == {"fid_corners_33", "is_corners_33", "is_std_corners_33"}
    for name, value in one.metrics.items():
        assert f"{name}  {value:.4f}" in printed
        assert other.metrics[name] == pytest.approx(value, rel=1e-4)
    assert (one.protocol.num_generated, one.protocol.num_real, one.protocol.steps) == (33, 1797, 3)
    assert one.protocol.data == "digits"
    assert one.protocol.weights == "ema 0.996"
    assert one.protocol.sampler.startswith("Ancestral(grid=uniform, variance=FixedSmall")


def test_images_of_the_data_set_itself_are_at_distance_zero(small):
    """Through the same road as evaluate.py: loader, uint8, features."""
    from ddpm import build
    from ddpm.metrics.evaluator import Evaluator
    from ddpm.metrics.fid import FrechetDistance

    data = build.data(small())
    data.setup()
    evaluator = Evaluator(MeanAndCorners(), [FrechetDistance(4)])
    for batch in data.eval_loader("train"):
        evaluator.update_real(batch["image"], batch["index"])
        evaluator.update_fake(batch["image"], batch["index"])
    assert evaluator.compute() == pytest.approx({"fid_corners_1797": 0.0}, abs=1e-6)


def test_short_names_of_results():
    values = {"fid_inception_50k": 1.0, "is_inception_50k": 2.0, "is_std_inception_50k": 0.1}
    assert evaluate.short_name(values) == "fid_is_inception_50k"
    assert evaluate.short_name({"fid_inception-8c7b4136_33": 1.0}) == "fid_inception-8c7b4136_33"
