"""evaluate.py from a checkpoint, or from images, to values with their protocol; with a small extractor."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import Quarters
from small_runs import csv_rows

from ddpm.commands import evaluate, train
from ddpm.config import build
from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.protocol import read_result
from ddpm.model.diffusion_model import DiffusionModel
from ddpm.training.module import DiffusionModule

pytestmark = pytest.mark.filterwarnings("ignore:(FID|IS|KID|precision).* of")


@pytest.fixture(autouse=True)
def quarters(monkeypatch):
    monkeypatch.setattr("ddpm.metrics.extractors.usual.usual", lambda data: Quarters())


@pytest.fixture
def checkpoint(copied):
    return copied("checkpoint_every_n_steps=2") / "checkpoints" / "last.ckpt"


@pytest.fixture
def scored(checkpoint, config, capsys):
    """`scored("metric=is")`: the results of an evaluation of 33 images, and what it printed as `scored.printed`."""

    def run(*overrides, source=f"ckpt={checkpoint}", out="results"):
        folder = checkpoint.parents[2] / out
        before = set(folder.glob("*.json"))
        capsys.readouterr()
        settings = (source, "num_samples=33", "trainer=cpu", f"out={folder}", *overrides)
        evaluate.run_evaluate(config("evaluate", *[each for each in settings if each]))
        run.printed = capsys.readouterr().out
        return [read_result(path) for path in sorted(set(folder.glob("*.json")) - before)]

    return run


def values(result):
    return {name.split("_quarters")[0]: value for name, value in result.metrics.items()}


def no_more_images(monkeypatch):
    def sample(self, *arguments):
        raise AssertionError("an image was made that was there")

    monkeypatch.setattr(DiffusionModel, "generate", sample)


def written(images, path):
    """The images, uint8 [N, H, W, 1], as a folder of PNGs, or as an archive."""
    if path.suffix == ".npz":
        np.savez(path, images)
    else:
        path.mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image[..., 0]).save(path / f"{number:05d}.png")
    return path


@pytest.fixture
def made(scored, checkpoint):
    """What the model's evaluation left: its result, and the 33 images as an array."""
    (result,) = scored("metric=[fid,is]")
    (rows,) = (checkpoint.parents[1] / "generated").glob("*/images.rows")
    images = np.fromfile(rows, np.uint8).reshape(33, -1)[:, :-1].reshape(33, 8, 8, 1)
    return result, images


def test_values_are_printed_and_stored_with_error_bars_and_protocol(scored):
    (one,) = scored("metric=[fid,is]", "batch_size=33")
    assert set(one.metrics) == {"fid_quarters_33", "is_quarters_33", "is_std_quarters_33"}
    assert set(one.errors) == {"fid_quarters_33", "is_quarters_33"}
    assert all(f"{name}  " in scored.printed for name in one.metrics)
    assert (one.protocol.num_generated, one.protocol.num_real, one.protocol.data) == (33, 1797, "digits")
    assert set(one.protocol.scores) == {"fid", "is", "is_std"}
    assert one.protocol.scores["fid"] == "FrechetDistance(layer=pooled)"
    assert (one.subject["step"], one.subject["steps"], one.subject["seed"]) == (4, 3, 0)
    assert one.subject["weights"] == "ema 0.996"
    assert one.subject["sampler"].startswith("Ancestral(timestep_spacing=uniform, variance=FixedSmall")
    assert one.subject["clip"] == "StaticThresholding()"
    assert one.environment.device.startswith("cpu")


def test_the_batch_size_does_not_change_the_values(scored):
    one, other = (scored("metric=fid", f"batch_size={n}", "keep_images=false", out=str(n))[0] for n in (33, 4))
    assert one.metrics == pytest.approx(other.metrics, rel=1e-3)  # one pixel a level off is 3e-4
    assert one.protocol == other.protocol


def test_another_metric_of_the_same_model_makes_no_image_again(scored, monkeypatch):
    (first,) = scored("metric=fid")
    no_more_images(monkeypatch)
    (second,) = scored("metric=all")
    assert second.metrics["fid_quarters_33"] == pytest.approx(first.metrics["fid_quarters_33"], rel=1e-9)
    assert {"kid", "precision", "recall", "density", "coverage", "is"} < set(values(second))
    assert "skipped: FrechetDistance(layer=spatial)" in scored.printed
    (fewer,) = scored("metric=fid", "num_samples=20")
    assert set(fewer.metrics) == {"fid_quarters_20"}


def test_more_samples_are_added_to_those_that_are_there(scored, monkeypatch):
    scored("batch_size=10", "num_samples=20")
    made, sample = [], DiffusionModel.generate
    monkeypatch.setattr(
        DiffusionModel, "generate", lambda self, ids, *a: (made.extend(ids.tolist()), sample(self, ids, *a))[1]
    )
    (grown,) = scored("batch_size=10", "num_samples=33")
    assert made == list(range(20, 33))
    (whole,) = scored("batch_size=10", "num_samples=33", "keep_images=false", out="whole")
    assert grown.metrics == pytest.approx(whole.metrics, rel=1e-9)


def test_another_seed_or_sampler_is_another_set_of_images_and_another_result(scored, checkpoint):
    changes = ["", "seed=1", "weights=raw", "noise=simplex", "schedule=linear", "clip=none"]
    changes += ["sampler=ddim sampler.steps=3", "noise=simplex +process.reverse_noise=white"]
    results = [scored(*words.split())[0] for words in [*changes, "trainer.precision=bf16-mixed"]]
    assert len({each.metrics["fid_quarters_33"] for each in results}) == 9
    assert len(list((checkpoint.parents[1] / "generated").iterdir())) == 9
    for word in ("clip=none", "trainer.precision=bf16-mixed", "clip=static"):
        scored(
            "metric=nll",
            "num_samples=null",
            "metric.nll.num_images=2",
            "schedule=linear",
            "schedule.num_timesteps=50",
            word,
            out="nll",
        )
    assert [len(list((checkpoint.parents[2] / "nll").glob(f"*.{kind}"))) for kind in ("json", "csv", "png")] == [3] * 3


def test_rows_that_were_changed_are_made_again(made, scored, checkpoint):
    (rows,) = (checkpoint.parents[1] / "generated").glob("*/images.rows")
    data = np.fromfile(rows, np.uint8).reshape(33, -1)
    data[3:13, 20] ^= 255
    data.tofile(rows)
    (again,) = scored("metric=[fid,is]", out="again")
    assert "10 stored images are damaged and are generated again" in scored.printed
    assert again.metrics == pytest.approx(made[0].metrics, rel=1e-6)


def test_a_record_that_cannot_be_read_is_written_again_and_its_images_stay(made, scored, checkpoint):
    (record,) = (checkpoint.parents[1] / "generated").glob("*/generation.json")
    before = record.read_text()
    record.write_text("")
    (again,) = scored("metric=[fid,is]", out="again")
    assert again.metrics == pytest.approx(made[0].metrics, rel=1e-6)
    assert json.loads(record.read_text())["weights_sha256"] == json.loads(before)["weights_sha256"]
    assert "image 33 of 33" not in scored.printed


@pytest.mark.parametrize("name", ["elsewhere", "elsewhere.npz"])
def test_images_made_elsewhere_have_the_values_of_the_model_that_made_them(made, scored, tmp_path, name):
    expected, images = made
    path = written(images, tmp_path / name)
    (found,) = scored(
        "metric=[fid,is]", "data=digits", "num_samples=null", source=f"images={path}", out="elsewhere_results"
    )
    assert found.metrics == pytest.approx(expected.metrics, rel=1e-9)
    assert found.protocol == expected.protocol
    assert found.subject["images"] == str(path)


def test_of_images_that_are_sorted_some_of_all_kinds_are_taken(scored, tmp_path):
    """200 black images, then 200 white ones: a quarter of them is of both kinds."""
    sorted_images = np.repeat(np.array([0, 255], np.uint8), 200)[:, None, None, None] * np.ones((1, 8, 8, 1), np.uint8)
    path = written(sorted_images, tmp_path / "sorted.npz")
    (part,) = scored(f"reference={path}", "num_samples=100", source=f"images={path}", out="sorted_results")
    (black,) = scored(
        f"reference={path}",
        "num_samples=null",
        source=f"images={written(sorted_images[:200], tmp_path / 'black.npz')}",
        out="black_results",
    )
    assert part.metrics["fid_quarters_100"] < 0.05 * black.metrics["fid_quarters_200"]


def test_two_sources_are_compared_with_each_other(made, scored, tmp_path):
    _, images = made
    one, other = written(images, tmp_path / "one"), written(images[:20], tmp_path / "other.npz")
    (same,) = scored(f"reference={one}", "num_samples=null", source=f"images={one}", out="same")
    assert same.metrics["fid_quarters_33"] == pytest.approx(0, abs=1e-9)
    (parts,) = scored(f"reference={one}", "num_samples=null", source=f"images={other}", out="parts")
    assert parts.metrics["fid_quarters_20"] > 1e-6
    assert (parts.protocol.data, parts.protocol.num_real) == ("one", 33)


def test_reference_statistics_are_written_and_stand_for_the_data(scored, tmp_path):
    file = tmp_path / "digits.npz"
    (first,) = scored("metric=fid", f"save_statistics={file}")
    with np.load(file) as theirs:
        assert theirs["mu"].shape == (4,)
        assert theirs["sigma"].shape == (4, 4)
    (second,) = scored("metric=fid", f"reference={file}", out="again")
    assert second.metrics == pytest.approx(first.metrics, rel=1e-9)
    assert second.protocol.split == "statistics"
    with pytest.raises(ValueError, match=r"KernelDistance.* use a reference of images"):
        scored("metric=kid", f"reference={file}")


def test_a_reference_batch_has_moments_for_fid_and_images_for_the_rest(made, scored, tmp_path):
    """As VIRTUAL_imagenet64_labeled.npz of guided diffusion: mu and sigma are of more images than arr_0 holds."""
    _, images = made
    statistics, batch = tmp_path / "all.npz", tmp_path / "batch.npz"
    (all_images,) = scored("metric=fid", f"save_statistics={statistics}")
    plain = written(images[:20], tmp_path / "plain.npz")
    with np.load(statistics) as stated, np.load(plain) as few:
        np.savez(batch, arr_0=few["arr_0"], mu=stated["mu"], sigma=stated["sigma"])
    scores = "metric=[kid,prdc,fid]"
    (found,) = scored(scores, f"reference={batch}", out="batch_results")
    (of_images,) = scored("metric=[kid,prdc]", f"reference={plain}", out="plain_results")
    assert {name: found.metrics[name] for name in of_images.metrics} == pytest.approx(of_images.metrics, rel=1e-9)
    assert found.metrics["fid_quarters_33"] == pytest.approx(all_images.metrics["fid_quarters_33"], rel=1e-9)
    (alone,) = scored("metric=fid", f"reference={batch}", out="alone")
    assert alone.metrics["fid_quarters_33"] == found.metrics["fid_quarters_33"]


def test_real_images_pass_the_extractor_once_for_all_evaluations(scored, monkeypatch):
    seen, extract = [], Quarters.__call__
    monkeypatch.setattr(Quarters, "__call__", lambda self, x, layers: seen.append(len(x)) or extract(self, x, layers))
    (one,) = scored("metric=kid")
    assert sum(seen) == 1797 + 33
    (other,) = scored("metric=kid", out="again")
    assert sum(seen) == 1797 + 33 + 33
    assert one.metrics == other.metrics
    scored("metric=kid", "num_real=100", out="fewer")
    assert sum(seen) == 1797 + 33 + 33 + 100 + 33


def test_many_checkpoints_give_one_table_and_a_curve(scored, checkpoint):
    results = scored(source=f"ckpt='{checkpoint.parent}/*.ckpt'")
    assert sorted(each.subject["step"] for each in results) == [2, 4]  # last.ckpt is one of them
    folder = checkpoint.parents[2] / "results"
    rows = csv_rows(next(folder.glob("table_*.csv")))
    assert [row["step"] for row in rows] == ["2", "4"]
    for row, result in zip(rows, sorted(results, key=lambda each: each.subject["step"]), strict=True):
        assert float(row["fid_quarters_33"]) == result.metrics["fid_quarters_33"]
        assert float(row["fid_quarters_33_error"]) == result.errors["fid_quarters_33"]
    with Image.open(next(folder.glob("table_*.png"))) as picture:
        assert min(picture.size) > 200
    assert "00000002" in scored.printed
    assert "±" in scored.printed


def test_repeats_print_all_and_their_spread(scored):
    results = scored("num_repeats=3", "seed=5")
    assert sorted(each.subject["seed"] for each in results) == [5, 6, 7]
    found = [each.metrics["fid_quarters_33"] for each in results]
    assert f"mean {np.mean(found):.4g}, deviation {np.std(found, ddof=1):.2g}, least {min(found):.4g}" in scored.printed


def test_copies_are_shown_beside_what_they_are_copies_of(scored, small, tmp_path):
    """Eight training images among the generated: the share, and a picture that has each beside itself."""
    data = build.data(small())
    pixels = next(data.split("train").pixels.read([torch.arange(8)])).permute(0, 2, 3, 1).numpy()
    noise = np.random.default_rng(0).integers(0, 255, (24, 8, 8, 1), dtype=np.uint8)
    path = written(np.concatenate([pixels, noise]), tmp_path / "copies.npz")
    (found,) = scored(
        "metric=memorization", "data=digits", "num_samples=null", source=f"images={path}", out="copies_results"
    )
    assert found.metrics["memorized_pixels_quarters_32"] == 8 / 32
    picture = np.asarray(Image.open(next((tmp_path / "copies_results").glob("*_nearest_pixels.png"))))
    top, side = 2 * 17, 64  # two lines of words, and the images enlarged
    first, nearest = (picture[top + 2 : top + 2 + side, left : left + side] for left in (2, 4 + side))
    assert first.std() > 0
    assert np.array_equal(first, nearest)


# While training


MEASURED = ("metric=fid", "evaluate.num_samples=33", "evaluate.every_n_steps=2", "logger=csv")


def measured(small, *overrides):
    return small(*MEASURED, *overrides)


def logged(run):
    rows = csv_rows(run / "metrics.csv")
    return {int(row["step"]): float(row["eval/fid_quarters_33"]) for row in rows if row.get("eval/fid_quarters_33")}


def test_samples_are_measured_while_training_as_evaluate_measures_them(copied, scored):
    run = copied(*MEASURED, "checkpoint_every_n_steps=2", to="measured")
    assert list(logged(run)) == [2, 4]
    (late,) = scored(source=f"ckpt={run}/checkpoints/00000004.ckpt")
    assert logged(run)[4] == pytest.approx(late.metrics["fid_quarters_33"], rel=1e-3)  # one pixel a level off is 3e-4
    results = [read_result(path) for path in sorted((run / "evaluations").glob("*.json"))]
    assert [each.subject["step"] for each in results] == [2, 4]
    assert results[1].protocol == late.protocol
    assert results[1].errors["fid_quarters_33"] > 0


def test_the_best_checkpoint_by_a_score_is_kept(small, tmp_path):
    settings = ("keep.best=eval/fid_quarters_33", "keep.last=1", "keep.mode=max", "optimizer.lr=1")
    train.run_train(measured(small, *settings, "trainer.max_steps=8"))
    run = tmp_path / "run"
    best = max(logged(run), key=logged(run).get)
    assert (run / "checkpoints" / "best.ckpt").resolve().name == f"{best:08d}.ckpt"


def test_a_score_that_is_never_measured_cannot_decide(small):
    with pytest.raises(ValueError, match=r"keep.best=eval/fid_x needs evaluations in training.* choose metric"):
        train.run_train(small("keep.best=eval/fid_x"))
    with pytest.raises(ValueError, match=r"keep.best must be one of val/loss, eval/fid_quarters_33, got"):
        train.run_train(measured(small, "keep.best=eval/fid_x"))


@pytest.mark.parametrize(
    ("metric", "num", "message"),
    [
        ("kid", 2, "needs at least 4 generated images, got 2"),
        ("is", 5, "needs at least 10 generated images, got 5"),
        ("prdc", 3, "needs at least 6 generated images, got 3"),
        ("fid", 1, "needs at least 2 generated images, got 1"),
        ("all", 2, "needs at least 10 generated images, got 2"),
        ("fid_per_class", 15, "at least 2 generated images of each class, got 1|no requested class"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_first_step_and_the_first_image(
    small, scored, tmp_path, monkeypatch, metric, num, message
):
    no_more_images(monkeypatch)
    monkeypatch.setattr(DiffusionModule, "training_step", lambda *arguments: pytest.fail("trained"))
    words = (f"metric={metric}", f"evaluate.num_samples={num}", "cond=class", f"run_dir={tmp_path / 'other'}")
    for run in (
        lambda: train.run_train(measured(small, *words)),
        lambda: scored(f"metric={metric}", f"num_samples={num}"),
    ):
        with pytest.raises(ValueError, match=message):
            run()


def test_an_evaluation_that_fails_ends_no_training_and_is_named_at_its_end(
    small, run_of, tmp_path, monkeypatch, capsys
):
    compute, times = Evaluator.compute, []

    def fail(self):
        times.append(1)
        if len(times) == 1:
            raise torch.OutOfMemoryError("out of memory")
        return compute(self)

    whole = logged(run_of(*MEASURED))
    monkeypatch.setattr(Evaluator, "compute", fail)
    train.run_train(measured(small))
    said = capsys.readouterr().out
    assert said.count("the evaluation at step 2 failed: out of memory\n") == 2  # then, and below the last line
    assert said.rindex("the evaluation") > said.rindex("done: 4 steps")
    assert logged(tmp_path / "run") == {4: whole[4]}


def test_checkpoints_hold_no_extractor_and_the_same_weights_as_without_metrics(run_of):
    runs = run_of(*MEASURED), run_of()
    one, other = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in runs)
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for name, value in one["state_dict"].items():
        assert not isinstance(value, torch.Tensor) or torch.equal(value, other["state_dict"][name])
    assert json.dumps(one["config"]) == json.dumps(other["config"])


def test_a_resumed_run_measures_what_was_still_to_be_measured_and_nothing_twice(small, run_of, tmp_path, monkeypatch):
    whole, cut = run_of(*MEASURED, "trainer.max_steps=6"), tmp_path / "run"
    compute, times = Evaluator.compute, []

    def killed(self):
        times.append(1)
        if len(times) == 2:
            raise KeyboardInterrupt
        return compute(self)

    settings = ("trainer.max_steps=6", "checkpoint_every_n_steps=2")
    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "compute", killed)
        with pytest.raises(BaseException):  # noqa: B017
            train.run_train(measured(small, *settings))
    train.run_train(measured(small, *settings, "resume.path=auto"))
    assert logged(cut) == logged(whole)
    assert (cut / "evaluations").is_dir()


def test_a_finished_run_that_is_resumed_measures_nothing_again(small, copied, monkeypatch):
    settings = ("trainer.max_steps=5", "evaluate.every_n_steps=4", "checkpoint_every_n_steps=5")
    copied(*MEASURED, *settings)
    monkeypatch.setattr(Evaluator, "compute", lambda self: pytest.fail("measured again"))
    train.run_train(measured(small, *settings, "resume.path=auto"))


def test_runs_of_one_name_in_two_sweeps_are_told_apart(scored, checkpoint, tmp_path):
    for sweep in ("a", "b"):
        (tmp_path / sweep / "0").mkdir(parents=True)
        shutil.copytree(checkpoint.parent, tmp_path / sweep / "0" / "checkpoints", symlinks=True)
    results = scored(source=f"ckpt='{tmp_path}/[ab]/0/checkpoints/*.ckpt'", out="sweeps")
    assert len(results) == 4
    names = [row["name"] for row in csv_rows(next((tmp_path / "sweeps").glob("table_*.csv")))]
    assert names == [f"{sweep}/0 {step:08d}" for sweep in "ab" for step in (2, 4)]


def test_statistics_that_no_score_needs_are_refused_before_the_work(scored, monkeypatch, tmp_path):
    no_more_images(monkeypatch)
    with pytest.raises(ValueError, match="save_statistics needs a metric of mean and covariance"):
        scored("metric=kid", f"save_statistics={tmp_path / 'file.npz'}")
