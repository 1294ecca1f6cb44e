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

    def done(task, *overrides, ckpt=upsampler):
        out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
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
        ("generate", [], r"conditioned on real images \(LowResolution\): choose task=upsample or task=cascade"),
        ("inpaint", ["task.num_resamples=1", "task.images=1"], "use task=upsample or task=cascade"),
    ],
)
def test_what_cannot_be_gets_one_clear_error(do, base, upsampler, task, overrides, message):
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
