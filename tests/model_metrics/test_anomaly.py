"""task=anomaly: maps that depend on nothing but the image, the time and the seed, and a result that says it all."""

import pytest
import torch
from PIL import Image
from precision import assert_rounded, roundings
from small_models import trained
from small_runs import ROOT, csv_rows

from ddpm.base.rng import Rng
from ddpm.base.types import Prediction
from ddpm.commands import evaluate
from ddpm.commands.short_forms import expand_short_forms
from ddpm.data.anomalies.base import AnomalySet
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.noises.simplex import Simplex
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.samplers.restoration import restore_repeatedly, squared_error_map
from ddpm.diffusion.samplers.timestep_spacing import uniform
from ddpm.diffusion.schedules.curves import cosine
from ddpm.evaluation.model_metrics.anomaly import shown_places
from ddpm.evaluation.model_metrics.anomaly_baselines import FLOOR, baselines
from ddpm.evaluation.model_metrics.anomaly_values import MapScorer, halves
from ddpm.metrics.protocol import read_result

PROCESS = GaussianDiffusion(cosine(50, 0.008, 0.999), Simplex(2, 0.8, 4, True))
RNG, IDS = Rng(2, "anomaly"), torch.tensor([4, 9, 2])
X0 = RNG.at(0, IDS).normal("x", (1, 6, 6)).clamp(-1, 1)


class Blank:
    """Believes that every image is empty."""

    def __call__(self, x_t, t, cond):
        return Prediction(torch.full_like(x_t, -1.0))


class Copy:
    """Believes that x_t is the image, but for its scale."""

    def __call__(self, x_t, t, cond):
        return Prediction(x_t / PROCESS.schedule.alpha(t))


def all_restored(denoiser, t=20, repeats=1, rows=slice(None), seed=2):
    sampler = DDIM(PROCESS, uniform, 10, 0.0)
    return list(restore_repeatedly(denoiser, sampler, X0[rows], t, Rng(seed, "anomaly"), IDS[rows], {}, repeats))


def test_what_is_believed_is_what_is_compared():
    (pair,) = all_restored(Blank())
    assert_rounded(squared_error_map(X0, pair.restored), (X0[:, 0] + 1).square(), 4)


def test_noise_is_the_process_own_and_another_one_each_time():
    first, second = all_restored(Blank(), repeats=2)
    for pair in (first, second):
        noise = (pair.degraded - PROCESS.schedule.alpha(20) * X0) / PROCESS.schedule.sigma(20)
        assert 0.2 < noise.std() < 3
        assert (noise[..., 1:] - noise[..., :-1]).abs().mean() < noise.abs().mean()  # neighbours are alike
    assert not torch.allclose(first.degraded, second.degraded)
    assert not torch.allclose(first.degraded, all_restored(Blank(), seed=3)[0].degraded)


def test_a_map_is_the_same_alone_and_in_a_batch():
    whole, prior_only = all_restored(Copy(), repeats=2), all_restored(Copy(), repeats=2, rows=slice(1, 2))
    for one, other in zip(whole, prior_only, strict=True):
        assert_rounded(one.restored[1:2], other.restored, 50)  # ten steps


def detected():
    """Ten images, of which every third has a bright square."""
    images = torch.full((10, 1, 8, 8), 100, dtype=torch.uint8)
    masks = torch.zeros(10, 8, 8, dtype=torch.bool)
    masks[::3, 2:4, 2:4] = True
    images[masks[:, None]] = 200
    kinds = tuple("square" if row % 3 == 0 else "good" for row in range(10))
    return AnomalySet(images, masks, kinds, torch.arange(10), "squares")


def test_baselines_are_distances_from_the_training_pixels():
    class Training:
        def batches(self, size):
            yield torch.full((4, 1, 8, 8), 100 / 127.5 - 1)
            yield torch.full((4, 1, 8, 8), 120 / 127.5 - 1)

    maps = baselines(Training(), detected())
    distance, scaled = maps["distance to the training mean"], maps["per-pixel Gaussian"]
    mean, variance = 110 / 127.5 - 1, (10 / 127.5) ** 2
    inside = (200 / 127.5 - 1 - mean) ** 2
    assert distance[0, 2, 2].item() == pytest.approx(inside, rel=roundings(10))
    assert scaled[0, 2, 2].item() == pytest.approx(inside / (variance + FLOOR), rel=roundings(10))
    closest = maps["nearest training image"]  # of 100 everywhere, as these images are but for their squares
    assert closest[1].max().item() == pytest.approx(0, abs=1e-9)
    assert closest[0, 2, 2].item() == pytest.approx((100 / 127.5) ** 2, rel=roundings(10))


def test_a_perfect_map_has_perfect_values_and_intervals_without_width():
    found = detected()
    values = MapScorer(found, "top", None, 50, 0).values(found.masks.float())
    for name in ("auroc_pixel", "aupro", "ap_pixel", "dice_best", "dice", "iou", "sensitivity", "auroc_image"):
        assert values[name].estimate.value == pytest.approx(1)
        assert (values[name].low, values[name].high) == pytest.approx((1, 1))


def test_the_threshold_is_chosen_on_one_half_and_measured_on_the_other():
    """On even images a threshold of 0.5 is right; on odd ones, where it is not chosen, nothing is above it."""
    masks = torch.zeros(8, 4, 4, dtype=torch.bool)
    masks[::4, 0, 0] = masks[1::4, 0, 0] = True
    kinds = tuple("dot" if row % 4 < 2 else "good" for row in range(8))
    found = AnomalySet(torch.zeros(8, 1, 4, 4, dtype=torch.uint8), masks, kinds, torch.arange(8), "dots")
    maps = masks.float()
    maps[1::2] *= 0.1
    scorer = MapScorer(found, "max", None, 20, 0)
    assert scorer.threshold_of(maps) == 0
    maps[0::4, 3, 3] = maps[2::4, 3, 3] = 0.5
    assert scorer.threshold_of(maps) == pytest.approx(0.5)
    assert scorer.values(maps)["sensitivity"].estimate.value == 0
    assert MapScorer(found, "max", 0.05, 20, 0).values(maps)["sensitivity"].estimate.value == 1


def test_both_halves_have_every_kind_whatever_the_order():
    kinds = ["good", "dot", "good", "dot", "good", "dot", "good", "dot", "line", "good", "star"]
    for half in halves(kinds):
        assert sum(kinds[row] == "dot" for row in half.tolist()) == 2
        assert sum(kinds[row] in ("line", "star") for row in half.tolist()) == 1
    both = torch.cat(halves(kinds))
    assert both.sort().values.tolist() == list(range(11))


def test_a_threshold_cannot_be_chosen_on_one_anomalous_image_and_measured_on_another():
    found = detected()
    few = AnomalySet(found.images[:3], found.masks[:3], found.kinds[:3], found.numbers[:3], "one square")
    with pytest.raises(
        ValueError, match=r"metric.anomaly.threshold must be a number where a single image is anomalous"
    ):
        MapScorer(few, "max", None, 20, 0)
    assert MapScorer(few, "max", 0.5, 20, 0).values(few.masks.float())["dice"].estimate.value == 1


def test_pictures_show_every_kind():
    found = detected()
    places = shown_places(found, 4)
    assert sorted(found.kinds[place] for place in places.tolist()) == ["good", "good", "square", "square"]
    assert len(shown_places(found, 1)) == 1
    assert len(shown_places(found, 50)) == 10


# As a command

ANOMALY = ("noise=simplex", "noise.frequency=4", "data=mnist", "data.num_train=64", "data.num_val=40", "seed=0")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("anomaly"), *ANOMALY)


def measured(config, run, out, *overrides):
    typed = ["task=anomaly", f"ckpt={run}", "trainer=cpu", f"out={out}", *overrides]
    chosen = expand_short_forms(typed, ROOT / "conf", "evaluate")
    evaluate.run_evaluate(config("evaluate", *chosen))
    (path,) = out.glob("*.json")
    return read_result(path), out


def test_the_command_leaves_values_a_table_and_a_picture(config, run, tmp_path, capsys):
    settings = ["task.times=[250,500]", "task.frequencies=[2,8]", "task.num_bootstrap=20", "task.num_shown=5"]
    result, out = measured(config, run, tmp_path / "out", *settings)
    names = set(result.estimates)
    assert {"auroc_pixel_40", "aupro_40", "auroc_image_40", "dice_40", "auroc_pixel_blob_40"} <= names
    assert all(0 <= estimate.value <= 1 for estimate in result.estimates.values())
    (table,) = out.glob("*_table.csv")
    rows = csv_rows(table)
    assert [row["map"] for row in rows] == [
        *("t = 250", "t = 500", "mean of times", "t = 250, frequency 2", "t = 250, frequency 8"),
        *("distance to the training mean", "per-pixel Gaussian", "nearest training image"),
    ]
    for row in rows:
        assert float(row["auroc_pixel_low"]) <= float(row["auroc_pixel_high"])
    assert float(rows[2]["auroc_pixel"]) == result.estimates["auroc_pixel_40"].value
    (picture,) = out.glob("*_pictures.png")
    assert Image.open(picture).size[1] > 5 * 64
    assert "distance to the training mean" in capsys.readouterr().out
    assert result.protocol.data == "planted, seed 0"


def test_a_value_without_a_divisor_is_said_and_left_out(config, run, tmp_path, capsys):
    result, _ = measured(config, run, tmp_path / "out", "task.threshold=1000", "task.num_bootstrap=5")
    assert "precision_40 has no value" in capsys.readouterr().out
    assert "precision_40" not in result.estimates
    assert result.estimates["specificity_40"].value == 1


def test_a_folder_of_mvtec_needs_no_images_held_out(config, run, tmp_path):
    root = tmp_path / "pen"
    for folder in ("test/good", "test/gap", "ground_truth/gap"):
        (root / folder).mkdir(parents=True)
    for number in range(4):
        Image.new("L", (28, 28), 40 * number).save(root / "test/good" / f"{number}.png")
        Image.new("L", (28, 28), 30 * number).save(root / "test/gap" / f"{number}.png")
        mask = Image.new("L", (28, 28))
        mask.paste(255, (4, 4, 9, 9))
        mask.save(root / "ground_truth/gap" / f"{number}_mask.png")
    words = ["data.num_val=0", "anomalies=mvtec", f"anomalies.root={root}", "task.num_bootstrap=5"]
    result, _ = measured(config, run, tmp_path / "out", *words)
    assert result.protocol.data == "mvtec pen"
    assert result.protocol.num_generated == 8
    assert "auroc_pixel_gap_8" in result.estimates


def test_batch_sizes_do_not_matter(config, run, tmp_path):
    few = [measured(config, run, tmp_path / str(n), "task.num_bootstrap=5", f"batch_size={n}")[0] for n in (7, 40)]
    one, other = (result.estimates["auroc_pixel_40"].value for result in few)
    assert one == pytest.approx(other, abs=1e-5)  # pixels that are alike to rounding may change places


def test_a_model_of_classes_is_told_none(config, tmp_path):
    result, _ = measured(
        config, trained(tmp_path, *ANOMALY, "cond=class", "cond.dropout=0.5"), tmp_path / "out", "task.num_bootstrap=5"
    )
    assert 0 <= result.estimates["auroc_pixel_40"].value <= 1


def test_a_model_that_must_be_told_a_class_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match=r"task=anomaly gives the model no condition.*cond.dropout=0.1"):
        measured(config, trained(tmp_path, *ANOMALY, "cond=class", "cond.dropout=0"), tmp_path / "out")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.times=[2000]"], r"metric.anomaly.times must be an integer in 1..1000, got 2000"),
        (["task.times=[]"], "metric.anomaly.times must be one time or more"),
        (["task.split=train"], "metric.anomaly.split=train: the model was trained on these images"),
        (["task.average=median"], "metric.anomaly.average must be one of restorations, maps"),
        (["task.repeats=0"], "metric.anomaly.repeats must be a positive integer"),
        (["task.image_score=sum"], "image_score must be one of max, mean, top"),
        (["task.threshold=-1"], "metric.anomaly.threshold must be a number at least 0"),
        (["noise=gaussian", "task.frequencies=[2]"], "metric.anomaly.frequencies has no effect on noise=White"),
    ],
)
def test_what_cannot_be_is_refused(config, run, tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        measured(config, run, tmp_path, *overrides)
