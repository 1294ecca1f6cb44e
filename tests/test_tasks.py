"""Every task of sample.py, on a checkpoint that was trained for a moment: what it writes and what must hold in it."""

import functools
import json

import numpy as np
import pytest
import torch
from hydra.errors import HydraException
from omegaconf import OmegaConf
from PIL import Image
from precision import roundings
from small_models import digits, trained
from small_runs import ROOT, configured

from ddpm.commands import sample
from ddpm.commands.options import options_of
from ddpm.config import wiring
from ddpm.tasks.masks import known_pixels

CONF = ROOT / "conf"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("tasks"), "sampler.steps=6")


@functools.cache
def model_of(ckpt, *overrides):
    config = configured("sample", ckpt.parent, f"ckpt={ckpt}", "trainer=cpu", *overrides)
    module, stored = sample.load_model(ckpt, config)
    return sample.task_model(module, sample.task_data(config, stored, module.condition), config.batch_size, {})


@pytest.fixture
def do(checkpoint):
    """`do("inpaint", "task.mask=top")`: arrays and figures of a task on a model that is loaded once."""

    def done(name, *overrides, ckpt=checkpoint):
        of_task = [each.removeprefix("task.") for each in overrides if each.startswith("task.")]
        of_model = [each for each in overrides if not each.startswith("task.")]
        settings = OmegaConf.merge(OmegaConf.load(CONF / "task" / f"{name}.yaml"), OmegaConf.from_dotlist(of_task))
        task = wiring.instantiate(settings, "task")
        with torch.no_grad():
            outcome = task(model_of(ckpt, *of_model))
        return {key: array.numpy() for key, array in outcome.arrays.items()}, outcome

    return done


def written(name, checkpoint, folder, *overrides):
    """Arrays, figures and pictures that sample.py writes, in this process."""
    settings = [f"ckpt={checkpoint}", f"task={name}", "trainer=cpu", f"out={folder}"]
    sample.run_sample(configured("sample", checkpoint.parent, *settings, *overrides))
    figures = json.loads((folder / f"{name}.json").read_text())
    pictures = {path.stem: np.asarray(Image.open(path)) for path in folder.glob("*.png")}
    return np.load(folder / f"{name}.npz"), figures, pictures


def generated(checkpoint, tmp_path, *overrides):
    """uint8 `[N, 8, 8]`, what the same model gives as plain samples."""
    config = configured("sample", checkpoint.parent, f"ckpt={checkpoint}", "trainer=cpu", "format=npz", *overrides)
    config.out = str(tmp_path / "generated")
    sample.run_sample(config)
    return np.load(tmp_path / "generated" / "samples.npz")["arr_0"][..., 0]


def levels(images):
    """Images in [-1, 1] as 0..255."""
    return (images.clip(-1, 1) + 1) * 127.5


SMALLEST = {
    "interpolate": ["task.num_mixtures=2", "task.times=[500,1000]"],
    "interpolate_prior": ["task.samples=[0,1]", "task.num_mixtures=2", "sampler=ddim", "sampler.steps=3"],
    "invert": ["task.images=2", "task.steps=[2,3]", "sampler=ddim"],
    "inpaint": ["task.images=2", "task.num_completions=2", "task.jump_length=2", "task.num_resamples=2"],
    "inpaint_product": ["task.images=2", "task.num_completions=2"],
    "progressive": ["task.num_samples=2", "task.num_completions=2"],
    "denoise": ["task.images=2"],
    "superres": ["task.images=2", "task.num_completions=2"],
}


def test_every_task_is_tried_here():
    assert set(options_of(CONF, "task")) == {
        *SMALLEST,
        "colorize",
        "generate",
        *("upsample", "upsample_files", "cascade"),  # tests/tasks/test_upsample.py
        "label_maps",  # tests/test_spatial_conditions.py
        *("degradation", "restoration"),  # tests/tasks/test_restoration.py
    }


@pytest.mark.parametrize("name", SMALLEST)
def test_a_task_writes_a_picture_what_it_shows_and_how_it_was_made(do, checkpoint, tmp_path, capsys, name):
    arrays, figures, pictures = written(name, checkpoint, tmp_path / "out", *SMALLEST[name])
    said = capsys.readouterr().out
    assert pictures[name].dtype == np.uint8
    assert pictures[name].shape[2] == 3
    assert len(np.unique(pictures[name])) > 2
    assert figures["task"]["_target_"].startswith(f"ddpm.tasks.{name}.")
    assert figures["seed"] == 0
    assert f"{name}.png" in said
    again, _ = do(name, *SMALLEST[name], "batch_size=3")
    assert set(arrays) == set(again)
    for key in arrays:
        assert np.isfinite(arrays[key]).all()
        assert np.allclose(arrays[key], again[key], atol=roundings(1000)), "whatever the batch size"


def test_an_interpolation_shares_its_noise_and_ends_at_what_each_image_alone_becomes(do):
    arrays, outcome = do("interpolate", "task.images=[3,700]", "task.num_mixtures=3", "task.times=[200]")
    assert np.allclose(arrays["originals"], digits(3, 700), atol=roundings(2))
    assert outcome.numbers["images"] == [3, 700]
    first, middle, last = arrays["interpolations"][0]
    mirrored, _ = do("interpolate", "task.images=[700,3]", "task.num_mixtures=3", "task.times=[200]")
    assert np.allclose(mirrored["interpolations"][0][::-1], arrays["interpolations"][0], atol=roundings(100))
    alone, _ = do("interpolate", "task.images=[3,3]", "task.num_mixtures=3", "task.times=[200]")
    assert np.allclose(alone["interpolations"][0], first, atol=roundings(100))
    assert not np.allclose(first, last, atol=0.1)
    assert not np.allclose(first, middle, atol=0.01)


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_an_interpolation_between_samples_begins_and_ends_at_these_samples(do, checkpoint, tmp_path, sampler):
    settings = [f"sampler={sampler}", "sampler.steps=3"]
    arrays, _ = do("interpolate_prior", *settings, "task.samples=[1,4,2]", "task.num_mixtures=3")
    samples = generated(checkpoint, tmp_path, *settings, "num_samples=5")
    ends = levels(arrays["interpolations"][:, [0, -1], 0])
    assert np.abs(ends - samples[[[1, 4], [4, 2]]]).max() < 1


def test_an_inversion_states_its_error_for_each_number_of_steps(do):
    arrays, outcome = do("invert", "task.images=[5,6,7]", "task.steps=[3,9]", "sampler=ddim")
    for row, made in zip(outcome.numbers["reconstruction"], arrays["reconstructions"], strict=True):
        of_each = (((made + 1) / 2 - (digits(5, 6, 7) + 1) / 2) ** 2).mean(axis=(1, 2, 3))
        assert row["of_each_image"] == pytest.approx(of_each.tolist(), rel=roundings(20))
        assert row["squared_error"] == pytest.approx(of_each.mean(), rel=roundings(20))
    assert [row["steps"] for row in outcome.numbers["reconstruction"]] == [3, 9]
    assert arrays["x_T"].shape == (2, 3, 1, 8, 8)


@pytest.mark.parametrize(
    ("mask", "hidden"),
    [
        ("left", np.s_[:, :4]),
        ("right", np.s_[:, 4:]),
        ("top", np.s_[:4]),
        ("bottom", np.s_[4:]),
        ("center", np.s_[2:6, 2:6]),
    ],
)
def test_a_mask_has_a_name_that_says_what_is_painted_anew(mask, hidden):
    expected = np.ones((8, 8))
    expected[hidden] = 0
    assert np.array_equal(known_pixels(mask, 8, 8), expected)


@pytest.mark.parametrize("name", ["inpaint", "inpaint_product"])
def test_inpainting_keeps_the_known_pixels_exactly_and_paints_the_others(do, name):
    arrays, outcome = do(name, *SMALLEST[name], "task.mask=bottom", "task.images=[10,20]")
    known = np.arange(8)[:, None].repeat(8, axis=1) < 4
    difference = arrays["completions"] - digits(10, 20)[:, None].astype(np.float32)
    assert np.abs(difference[..., known]).max() < roundings(2)
    assert outcome.numbers["largest_error_of_the_known_part"] == 0
    assert np.abs(difference[..., ~known]).mean() > 0.05
    one, other = arrays["completions"].swapaxes(0, 1)
    assert not np.allclose(one, other, atol=0.01)


def test_a_completion_keeps_its_noise_whatever_the_other_images_and_their_number(do):
    settings = ["task.num_completions=2", "task.num_resamples=1"]
    two, _ = do("inpaint", *settings, "task.images=[10,20]")
    one, _ = do("inpaint", "task.num_completions=3", "task.num_resamples=1", "task.images=[20]")
    assert np.allclose(two["completions"][1], one["completions"][0, :2], atol=roundings(100))


def test_a_mask_may_be_a_picture_white_where_it_is_painted_anew(do, tmp_path):
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[1:3, 5:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    arrays, _ = do("inpaint_product", f"task.mask={tmp_path / 'mask.png'}", "task.images=[10]")
    changed = np.abs(arrays["completions"][0] - digits(10).astype(np.float32)).max(axis=(0, 1)) > roundings(2)
    assert not changed[mask == 0].any()
    assert changed[mask == 255].any()


def test_random_pixels_are_about_half_and_the_same_in_every_run():
    """n = 4096, five standard errors."""
    known = known_pixels("random", 64, 64)
    assert torch.equal(known, known_pixels("random", 64, 64))
    assert known.mean().item() == pytest.approx(0.5, abs=5 * 0.5 / 64)


def test_super_resolution_has_exactly_the_given_means_of_blocks(do):
    arrays, outcome = do("superres", "task.images=[10,20]", "task.factor=2", "task.num_completions=3")
    given = digits(10, 20).reshape(2, 1, 4, 2, 4, 2).mean(axis=(3, 5))
    made = arrays["completions"].reshape(2, 3, 1, 4, 2, 4, 2).mean(axis=(4, 6))
    assert np.abs(made - given[:, None]).max() < roundings(20)
    assert outcome.numbers["largest_error_of_the_known_part"] < roundings(20)


def test_pixels_of_two_values_are_inpainted_by_the_product_and_shown_as_the_model_sees_them(do, tmp_path):
    """Sohl-Dickstein et al. 2015 on binomial diffusion."""
    ckpt = trained(tmp_path, "process=binomial", "codec=binary", "objective=logit", "loss=vlb", "schedule=jsd")
    arrays, _ = do("inpaint_product", "task.images=[10,20]", "task.num_completions=2", ckpt=ckpt)
    right = np.sign(digits(10, 20))[..., 4:]
    assert np.array_equal(arrays["completions"][..., 4:], right[:, None].repeat(2, axis=1))
    assert np.array_equal(arrays["known"][..., 4:], right)
    assert set(np.unique(arrays["completions"])) == {-1, 1}
    with pytest.raises(ValueError, match=r"task\.num_resamples=10 needs process=gaussian; use task\.num_resamples=1"):
        do("inpaint", ckpt=ckpt)
    with pytest.raises(ValueError, match="task=denoise needs process=gaussian, but the model has BinomialDiffusion"):
        do("denoise", ckpt=ckpt)


def test_colorizing_keeps_the_mean_over_the_channels(do, tmp_path):
    """On a folder of colour pictures made here."""
    (tmp_path / "images").mkdir()
    generator = np.random.default_rng(0)
    for number in range(16):
        pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number:02d}.png")
    colour = ["data=folder", f"data.source.root={tmp_path / 'images'}", "data.size=8", "data.channels=3"]
    ckpt = trained(tmp_path, *colour)
    settings = ["task.images=3", "task.num_completions=2", "task.jump_length=1", "task.num_resamples=2"]
    arrays, _ = do("colorize", *settings, ckpt=ckpt)
    given = arrays["originals"].mean(axis=1)
    assert np.abs(arrays["completions"].mean(axis=2) - given[:, None]).max() < roundings(20)
    assert np.abs(arrays["completions"] - arrays["originals"][:, None]).max() > 0.1


def test_jumps_of_ten_steps_become_as_long_as_fewer_steps_allow(do):
    """6 steps, of which 5 are run 10 times: 6 + 9 x 5."""
    _, outcome = do("inpaint", "task.images=1", "task.num_completions=1")
    assert outcome.numbers["steps_down"] == 51


def test_denoising_states_the_psnr_which_before_is_that_of_the_noise(do):
    """Mean squared error 1 / snr in [-1, 1], so PSNR 10 log10(4 snr); n = 6 x 64 pixels, four standard errors."""
    arrays, outcome = do("denoise", "task.snr=2", "task.images=6")
    snr = outcome.numbers["snr"]
    assert snr == pytest.approx(2, rel=0.02)
    error = np.square(arrays["noisy"] - arrays["originals"]).mean()
    assert error * snr == pytest.approx(1, abs=4 * np.sqrt(2 / (6 * 64)))
    for name, values in outcome.numbers["psnr_db"].items():
        error = np.square((arrays[name] - arrays["originals"]) / 2).mean(axis=(1, 2, 3))
        assert values == pytest.approx((-10 * np.log10(error)).tolist(), abs=roundings(20, scale=10))


def test_strips_end_at_the_samples_and_completions_of_sample_0_hold_it(do, checkpoint, tmp_path):
    arrays, outcome = do("progressive", "task.num_samples=3", "task.times=[500]", "task.num_completions=2")
    samples = generated(checkpoint, tmp_path, "num_samples=3")
    assert np.abs(levels(arrays["predicted_x0"][:, -1, 0]) - samples).max() < 1
    assert outcome.numbers["times"][0] == 1000
    assert outcome.numbers["shared_times"] == [500]
    assert np.abs(levels(arrays["completions"][0, 0, 0]) - samples[0]).max() < 1, "its noise is that of sample 0"
    assert not np.allclose(arrays["completions"][0, 0], arrays["completions"][0, 1], atol=0.01)
    assert set(outcome.pictures) == {"progressive", "completions"}


BAD = [
    ("invert", [], "task=invert needs a deterministic sampler, but Ancestral.* adds noise; add sampler=ddim"),
    ("interpolate_prior", ["task.of=latent"], "task.of=latent needs a model that draws x0 from a latent"),
    ("interpolate_prior", ["task.of=noise"], "task.of must be one of all, prior, latent, got 'noise'"),
    ("progressive", ["sampler=ddim"], "completions of one x_t are the same; add sampler=ancestral"),
    ("invert", ["task.steps=[1001]", "sampler=ddim"], "task.steps must be an integer in 1..1000, got 1001"),
    ("invert", ["task.steps=10", "sampler=ddim"], "task.steps must be a list of integers"),
    ("invert", ["task.images=[1797]", "sampler=ddim"], "task.images must be an integer in 0..1796, got 1797"),
    ("denoise", ["task.snr=0"], "task.snr must be greater than 0"),
    ("denoise", ["task.split=test"], "split must be train or val: data=digits has no data.test_source, got 'test'"),
    ("denoise", ["task.images=0"], "task.images must be an integer of at least 1, got 0"),
    ("interpolate", ["task.images=3"], "task.images must be two image numbers"),
    ("interpolate", ["task.times=[0]"], "task.times must be an integer in 1..1000, got 0"),
    ("inpaint", ["task.mask=lft"], "task.mask must be one of left, .* got 'lft'; did you mean 'left'"),
    ("inpaint", ["task.jump_length=6"], "task.jump_length must be less than the sampler's number of steps, 6"),
    ("colorize", [], "task=colorize needs colour images"),
    ("denoise", ["data=mnist"], r"1 channels and 8 x 8 .* of mnist have .* 28 x 28 .*data\.size=\[8,8\]"),
]


@pytest.mark.parametrize(("name", "overrides", "message"), BAD, ids=lambda value: str(value)[:50])
def test_what_cannot_be_gets_one_clear_error(do, name, overrides, message):
    with pytest.raises(ValueError, match=message):
        do(name, *overrides)


BAD_COMMANDS = [
    ("generate", ["+data.flip=true"], "data has no effect on the generation of images"),
    ("interpolate_prior", ["+data.flip=true"], "data has no effect on a task that reads no data set"),
    ("denoise", ["batch_size=0"], "batch_size must be a positive integer, got 0"),
    ("superres", ["task.factor=3"], "task.factor must be a divisor of the images' height and width, 8 x 8, got 3"),
    ("denoise", ["num_samples=3"], "num_samples"),  # as format and gif a field of task=generate alone
]


@pytest.mark.parametrize(("name", "overrides", "message"), BAD_COMMANDS, ids=lambda value: str(value)[:50])
def test_a_command_that_cannot_be_writes_nothing(checkpoint, tmp_path, name, overrides, message):
    with pytest.raises((ValueError, HydraException), match=message):
        written(name, checkpoint, tmp_path / "out", *overrides)
    assert not (tmp_path / "out").exists()


def test_an_outcome_is_replaced_by_its_like_alone(checkpoint, tmp_path):
    for batch_size in (1, 2):
        written("denoise", checkpoint, tmp_path / "out", "task.images=2", f"batch_size={batch_size}")
    with pytest.raises(ValueError, match=r"task\.images: 2 in the folder, 3 requested"):
        written("denoise", checkpoint, tmp_path / "out", "task.images=3")


def test_a_model_of_few_times_is_inverted_with_the_steps_of_the_task_alone(checkpoint, tmp_path):
    """50, the number of the option, is more than it has."""
    ckpt = trained(tmp_path, "schedule.num_timesteps=20")
    arrays, _, _ = written("invert", ckpt, tmp_path / "out", "task.images=2", "task.steps=[5,20]", "sampler=ddim")
    assert arrays["reconstructions"].shape[:2] == (2, 2)
