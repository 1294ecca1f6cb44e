"""Super-resolution from the command line: training, task=upsample and task=cascade on models of a moment."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import awake
from PIL import Image
from precision import assert_rounded, roundings
from small_models import digits, trained
from small_runs import SMALL, configured

from ddpm.commands import sample, train
from ddpm.metrics.fidelity import psnr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("upsample")


@pytest.fixture(scope="module")
def upsampler(folder):
    return trained(folder / "large", "cond=low_res", "data.num_val=40", "sampler.steps=2")


@pytest.fixture(scope="module")
def base(folder):
    return trained(
        folder / "small", "cond=class", "data.size=4", "data.resize=box", "model.channel_mults=[1]", "sampler.steps=2"
    )


@pytest.fixture
def do(tmp_path, upsampler):
    """`do("upsample", "task.images=2")`: arrays, figures and picture that sample.py writes."""

    def done(task, *overrides, ckpt=upsampler, out=None):
        out = out or tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
        settings = [f"ckpt={ckpt}", f"task={task}", "trainer=cpu", f"out={out}", "batch_size=16"]
        sample.run_sample(configured("sample", tmp_path, *settings, *overrides))
        arrays = np.load(out / f"{task}.npz")
        figures = json.loads((out / f"{task}.json").read_text())
        picture = np.asarray(Image.open(out / f"{task}.png"))
        return {name: torch.from_numpy(array) for name, array in arrays.items()}, figures, picture

    return done


def blocks(images):
    """Means of 2 x 2 pixels, by hand."""
    return (images[..., ::2, ::2] + images[..., 1::2, ::2] + images[..., ::2, 1::2] + images[..., 1::2, 1::2]) / 4


def test_upsampling_shows_the_small_images_samples_of_them_and_the_truth(do, capsys):
    arrays, figures, picture = do("upsample", "task.images=[3,8]", "task.split=train", "task.num_samples=5")
    assert arrays["originals"].shape == (2, 1, 8, 8)
    assert arrays["samples"].shape == (2, 5, 1, 8, 8)
    assert_rounded(arrays["small"], blocks(arrays["originals"]), 4)
    assert picture.shape[1] > (2 + 1 + 5 + 1) * 64, "a column for each"
    assert figures["images"] == [3, 8]
    bicubic = F.interpolate(arrays["small"], scale_factor=2, mode="bicubic").clamp(-1, 1)
    assert_rounded(arrays["bicubic"], bicubic, 20)  # sums of 16 products
    of = {"bicubic": bicubic, "mean": arrays["samples"].mean(1), "one_sample": arrays["samples"][:, 0]}
    expected = {name: float(psnr(images, arrays["originals"]).mean()) for name, images in of.items()}
    assert figures["psnr_db"] == pytest.approx(expected, abs=roundings(100, scale=10))
    error = blocks(arrays["samples"]) - arrays["small"][:, None]
    assert figures["disagreement_levels"] == pytest.approx(
        127.5 * float(error.square().mean().sqrt()), rel=roundings(20)
    )
    assert "of 255 levels" in capsys.readouterr().out


def test_the_images_are_those_that_the_model_was_not_trained_on(do):
    held_out, _, _ = do("upsample", "task.images=40", "task.num_samples=1")
    trained_on, _, _ = do("upsample", "task.images=100", "task.split=train", "task.num_samples=1")
    distances = torch.cdist(held_out["originals"].flatten(1), trained_on["originals"].flatten(1))
    assert distances.min() > 0


def test_samples_of_an_image_do_not_depend_on_the_others_nor_on_the_batch(do):
    settings = ("task.split=train", "task.num_samples=2")
    both, _, _ = do("upsample", "task.images=[3,8]", *settings)
    alone, _, _ = do("upsample", "task.images=[8]", *settings, "batch_size=1")
    assert_rounded(alone["samples"][0], both["samples"][1], 500)  # two passes through some fifty layers
    assert (both["samples"][0, 0] - both["samples"][0, 1]).abs().max() > 0.01


def test_the_samples_follow_the_small_image(upsampler):
    """With one network and one noise, another small image gives another sample; the same gives the same."""
    config = configured("sample", upsampler.parent, f"ckpt={upsampler}", "trainer=cpu")
    module, _ = sample.load_model(upsampler, config)
    awake(module.weights(module.predict_weights)).float()
    ids = torch.zeros(3, dtype=torch.int64)
    told = module.sample_condition.of({"image": torch.from_numpy(digits(3, 8, 3)).float()})
    with torch.no_grad():
        first, other, again = module.generate(ids, module.predict_weights, told)
    assert_rounded(first, again, 500)  # two passes through some fifty layers
    assert (first - other).abs().max() > 0.01


def test_a_cascade_enlarges_the_samples_of_the_other_model(do, base, tmp_path):
    arrays, figures, picture = do("cascade", f"task.base={base}", "task.num_columns=2")
    assert arrays["small"].shape == (20, 1, 4, 4)
    assert arrays["large"].shape == (20, 1, 8, 8)
    assert picture.shape[0] > 10 * 64, "a row for each class"
    error = blocks(arrays["large"]) - arrays["small"]
    assert figures["disagreement_levels"] == pytest.approx(
        127.5 * float(error.square().mean().sqrt()), rel=roundings(20)
    )
    plain = [f"ckpt={base}", "trainer=cpu", "format=npz", "num_samples=20", "class=all", f"out={tmp_path / 'plain'}"]
    sample.run_sample(configured("sample", tmp_path, *plain))
    generated = torch.from_numpy(np.load(tmp_path / "plain" / "samples.npz")["arr_0"])[..., 0]
    levels = (arrays["small"][:, 0] + 1) * 127.5
    assert (levels - generated).abs().max() <= 0.51, "what the base gives by itself, but for rounding to whole levels"


TASKS = "task=upsample, task=upsample_files or task=cascade"
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 4, 4), np.uint8)
"""Small images of the model, `[N, h, w]`."""


def saved(folder, pixels):
    """The folder, with pixels `[N, H, W]` as 0.png, 1.png, ..."""
    folder.mkdir()
    for number, each in enumerate(pixels):
        Image.fromarray(each).save(folder / f"{number}.png")
    return folder


def test_small_images_of_a_folder_are_upsampled_as_they_are(do, tmp_path, capsys):
    """As large images whose blocks of 2 x 2 pixels have one value are, of which they are the exact small images."""
    small, large = saved(tmp_path / "small", PICTURES), saved(tmp_path / "large", PICTURES.repeat(2, 1).repeat(2, 2))
    found, figures, picture = do("upsample_files", f"task.small={small}", "task.num_samples=2")
    assert "3 images" in capsys.readouterr().out
    data = ("data=folder", f"data.source.root={large}", "data.channels=1", "data.size=8", "data.num_val=0")
    expected, of_large, _ = do("upsample", *data, "task.split=train", "task.images=[0,1,2]", "task.num_samples=2")
    assert_rounded(found["small"], torch.from_numpy(PICTURES)[:, None] / 127.5 - 1, 2)
    assert_rounded(found["samples"], expected["samples"], 500)  # two passes through some fifty layers
    assert figures["disagreement_levels"] == pytest.approx(of_large["disagreement_levels"], rel=roundings(500))
    assert figures["images"] == [f"{small}/{number}.png" for number in range(3)]
    assert picture.shape[1] > (1 + 2) * 64, "a column for each"
    (written,) = tmp_path.glob("out*/large")
    assert len(list(written.iterdir())) == 6
    levels = (found["samples"][2, 1, 0] + 1) * 127.5
    stored = torch.from_numpy(np.asarray(Image.open(written / "000002_1.png")).copy())
    assert (levels.clamp(0, 255) - stored).abs().max() <= 0.5 + 1e-4


def test_samples_of_a_folder_that_has_changed_are_not_mixed_with_earlier_ones(do, tmp_path):
    folder, out = saved(tmp_path / "small", PICTURES), tmp_path / "same"
    do_again = ("upsample_files", f"task.small={folder}")
    first, _, _ = do(*do_again, out=out)
    again, _, _ = do(*do_again, out=out)
    assert torch.equal(first["samples"], again["samples"])
    (folder / "2.png").unlink()
    with pytest.raises(ValueError, match=r"another generation:\n  files\.small: .*\nchoose another folder with out="):
        do(*do_again, out=out)


@pytest.mark.parametrize("kind", ["colour file", "file without extension", "npz"])
def test_small_images_may_be_one_file(do, tmp_path, kind):
    path = tmp_path / {"npz": "a.npz", "colour file": "a.png"}.get(kind, "a")
    if kind == "npz":
        np.savez(path, PICTURES)
    else:
        Image.fromarray(PICTURES[0]).convert("RGB" if "colour" in kind else "L").save(path, "PNG")
    found, _, _ = do("upsample_files", f"task.small={path}")
    num = len(PICTURES) if kind == "npz" else 1
    assert_rounded(found["small"], torch.from_numpy(PICTURES[:num])[:, None] / 127.5 - 1, 2)
    assert found["samples"].shape == (num, 1, 1, 8, 8)


def test_images_of_another_size_are_all_named_with_the_size_of_the_model(do, tmp_path):
    folder = saved(tmp_path / "mixed", [PICTURES[0], PICTURES[1].repeat(2, 0).repeat(2, 1), PICTURES[2, :3]])
    with pytest.raises(ValueError, match="2 of 3 images do not fit") as caught:
        do("upsample_files", f"task.small={folder}")
    first, second, remedy = str(caught.value).splitlines()[-3:]
    assert first.endswith("1.png: is 8 x 8, but the small images of this model are 4 x 4")
    assert "2.png: is 3 x 4" in second
    assert remedy == "Remedy: resize all of them to that; task=upsample data=... reduces large images (8 x 8) itself"


@pytest.mark.parametrize(
    ("task", "overrides", "message"),
    [
        ("cascade", [], r"task\.base must be the checkpoint of a model of small images, .* got None"),
        ("cascade", ["task.num_columns=0", "task.base=x"], "task.num_columns must be a positive integer"),
        (
            "cascade",
            ["task.base=UPSAMPLER"],
            r"task\.base must be a model of images \[1, 4, 4\], but it generates \[1, 8,",
        ),
        ("cascade", ["ckpt=BASE", "task.base=BASE"], "task=cascade needs a model with cond=low_res, .* has ClassLabel"),
        ("upsample", ["ckpt=BASE"], "task=upsample needs a model with cond=low_res, .* with cond=low_res"),
        ("upsample", ["task.num_samples=0"], "task.num_samples must be a positive integer"),
        ("upsample", ["task.images=41"], r"task\.images must be an integer in 1\.\.40"),
        ("upsample_files", [], r"task\.small must be the path of small images, .* got None"),
        ("upsample_files", ["task.small=."], r"task\.small=\. contains neither images .* nor \.parquet files"),
        ("upsample_files", ["task.small=gone.png"], r"task\.small=gone\.png does not exist; give a folder, .zip or"),
        ("upsample_files", ["task.small=.", "task.num_samples=0"], "task.num_samples must be a positive integer"),
        ("upsample_files", ["task.small=.", "data=digits"], "data has no effect on a task that reads no data set"),
        ("upsample_files", ["ckpt=BASE", "task.small=."], "task=upsample_files needs a model with cond=low_res"),
        (
            "generate",
            [],
            rf"conditioned on real images \(LowResolution\): choose {TASKS}",
        ),
        (
            "inpaint",
            ["task.num_resamples=1", "task.images=1"],
            f"use {TASKS}",
        ),
    ],
)
def test_what_cannot_be_gets_one_clear_error(do, base, upsampler, task, overrides, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = [each.replace("BASE", str(base)).replace("UPSAMPLER", str(upsampler)) for each in overrides]
    ckpt = [each.removeprefix("ckpt=") for each in named if each.startswith("ckpt=")]
    with pytest.raises(ValueError, match=message):
        do(task, *(each for each in named if not each.startswith("ckpt=")), ckpt=(*ckpt, upsampler)[0])


@pytest.mark.parametrize(
    "settings",
    [["cond=low_res", "data.num_val=40"], ["model=caption_unet_tiny", "cond=attributes", "model.token_channels=6"]],
    ids=["low_res", "caption"],
)
def test_a_condition_trains_validates_draws_and_leaves_a_checkpoint(tmp_path, settings):
    small = [each for each in SMALL if each != "data=digits"]
    digits_in_place = ["data=digits", "trainer.max_steps=2", "sampler.steps=2", "sample_every_n_steps=2"]
    train.run_train(configured("train", tmp_path / "run", *small, *digits_in_place, *settings))
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    assert list((tmp_path / "run").rglob("*.png"))
