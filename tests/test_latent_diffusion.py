"""Diffusion of the latents of a first stage, from train.py to an exported folder."""

import re

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from processes import command, ended
from small_models import QUICK, trained
from small_runs import composed, configured

from ddpm.base.user_cache import user_cache
from ddpm.checkpoint.stored_config import FITTED
from ddpm.commands import evaluate, export, replay, sample, train
from ddpm.config import build, load
from ddpm.data.latents import shard_path
from ddpm.data.pixels import to_floats

QUIET = ("logger=none", "trainer=cpu", "data=digits", "data.batch_size=16", "trainer.max_steps=2")


def stage_words(*words):
    small = ("model.base_channels=8", "model.num_groups=4", "adversary=none")
    return ("experiment=first_stage_mnist", *QUIET, *small, "perceptual=none", "~callbacks.reconstructions", *words)


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    """A first stage that makes 2 x 2 latents of 8 x 8 digits."""
    folder = tmp_path_factory.mktemp("stage")
    train.run_train(configured("train", folder / "stage", *stage_words()))
    return (folder / "stage" / "checkpoints" / "last.ckpt").resolve()


def words_of(stage, *words):
    return (*QUICK, "trainer.max_steps=2", "codec=latent", f"codec.first_stage={stage}", "clip=none", *words)


@pytest.fixture
def latent_run(stage, config, tmp_path):
    def trained(*words, to="latent"):
        settings = configured("train", tmp_path / to, *words_of(stage, *words))
        train.run_train(settings)
        return tmp_path / to / "checkpoints" / "last.ckpt"

    return trained


def fitted(checkpoint):
    return torch.load(checkpoint)["config"][FITTED]["codec"]


def weights(checkpoint):
    return {name: w for name, w in torch.load(checkpoint)["state_dict"].items() if isinstance(w, torch.Tensor)}


def moments_of_all(checkpoint, stage):
    """Mean and standard deviation of z of every training image."""
    model, stored = load.from_checkpoint(checkpoint, OmegaConf.create())
    images = torch.cat(list(build.data(stored).split("train").batches(500)))
    with torch.no_grad():
        mean, log_variance = model.codec.moments(images).double().chunk(2, dim=1)
    return mean, (log_variance / 2).exp()


def test_the_scale_makes_the_latents_of_the_split_have_unit_variance(latent_run, stage):
    checkpoint = latent_run()
    mean, std = moments_of_all(checkpoint, stage)
    expected = (mean.var(correction=0) + std.square().mean()).sqrt()
    assert fitted(checkpoint)["scale"] * expected.item() == pytest.approx(1, abs=1e-6)


def test_a_shift_centres_each_channel(latent_run, stage):
    checkpoint = latent_run("codec.shift=true", "codec.sample=false")
    mean, _ = moments_of_all(checkpoint, stage)
    found, centre = fitted(checkpoint), mean.mean((0, 2, 3))
    assert found["shift"] == pytest.approx(centre.tolist(), abs=1e-6)
    spread = (mean - centre[:, None, None]).square().mean().sqrt().item()
    assert found["scale"] * spread == pytest.approx(1, abs=1e-6)
    chosen = fitted(latent_run("codec.shift=true", "codec.sample=false", "codec.scale=2", to="chosen"))
    assert chosen == {name: value for name, value in found.items() if name != "scale"}


def test_the_scale_of_the_first_batch_is_that_of_sixteen_images(latent_run):
    whole, first = fitted(latent_run())["scale"], fitted(latent_run("codec.scale=first_batch", to="first"))["scale"]
    assert first == pytest.approx(whole, rel=0.3)
    assert first != whole


@pytest.mark.slow
def test_two_processes_find_the_same_scale_and_share_the_encoding(stage, tmp_path):
    words = words_of(stage, "data.latents=cache", "data.flip=true")
    for devices in (1, 2):
        code, output = ended(command(tmp_path, *words, f"trainer.devices={devices}", f"run_dir=run{devices}"))
        assert code == 0, output
    one, two = (fitted(tmp_path / f"run{n}" / "checkpoints" / "last.ckpt") for n in (1, 2))
    assert one["scale"] == pytest.approx(two["scale"], rel=1e-12)


def test_networks_take_the_shape_of_the_latents(latent_run):
    model, stored = load.from_checkpoint(latent_run(), OmegaConf.create())
    assert model.latent_shape == (3, 2, 2)
    assert model.network.in_channels == stored.model.in_channels == 3
    assert model.sample(3).shape == (3, 1, 8, 8)


def test_a_first_stage_is_not_saved_again(latent_run):
    assert all(name.startswith(("network.", "averages.")) for name in weights(latent_run()))


def test_a_training_on_kept_latents_never_encodes_and_equals_one_that_does_up_to_half_precision(
    latent_run, monkeypatch
):
    from ddpm.networks.autoencoder import KLAutoencoder
    from ddpm.training.module import DiffusionModule

    plain = weights(latent_run("data.flip=true"))
    kept = weights(latent_run("data.flip=true", "data.latents=cache", to="kept"))
    for name, weight in plain.items():
        assert torch.allclose(weight, kept[name], atol=2e-3), name

    def no_encoder(*args):
        raise AssertionError("the encoder runs in training")

    before = DiffusionModule.training_step
    monkeypatch.setattr(
        DiffusionModule,
        "training_step",
        lambda self, *args: (monkeypatch.setattr(KLAutoencoder, "moments", no_encoder), before(self, *args))[1],
    )
    again = weights(latent_run("data.flip=true", "data.latents=cache", to="again"))
    assert all(torch.equal(weight, again[name]) for name, weight in kept.items())


def test_kept_latents_are_those_of_each_image_and_of_its_mirror_image(latent_run, stage):
    checkpoint = latent_run("data.flip=true", "data.latents=cache", "data.num_val=100")
    model, stored = load.from_checkpoint(checkpoint, OmegaConf.create())
    (folder,) = user_cache("latents").iterdir()
    kept = np.concatenate([np.load(shard_path(folder, number)) for number in range(2)])
    images = build.data(stored).split("train")
    assert len(kept) == len(images) == 1697
    for row in (0, 5, 1696):
        (pixels,) = images.pixels.reader(persistent=False).read([images.indices[[row]]])
        for variant, image in enumerate((to_floats(pixels), to_floats(pixels).flip(-1))):
            found = torch.from_numpy(kept[row, variant]).float()
            assert torch.allclose(model.codec.moments(image)[0], found, rtol=1e-3, atol=1e-3)


def test_encoding_goes_on_where_it_was_killed_and_replaces_damaged_files(latent_run, capsys):
    latent_run("data.latents=cache")
    (folder,) = user_cache("latents").iterdir()
    first, second = shard_path(folder, 0), shard_path(folder, 1)
    before, made = second.read_bytes(), first.stat().st_mtime_ns
    second.unlink()
    for number, damaged in enumerate((None, before[:1000], b"", b"no array", first.read_bytes())):
        if damaged is not None:
            second.write_bytes(damaged)
        latent_run("data.latents=cache", to=f"again{number}")
        assert second.read_bytes() == before
    assert first.stat().st_mtime_ns == made
    assert "image 773 of 773: encoded once" in capsys.readouterr().out


def test_a_cache_that_cannot_be_written_is_one_error(latent_run, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"cannot write to .*file/latents.*Not a directory.*DDPM_CACHE=FOLDER"):
        latent_run("data.latents=cache")


def test_a_bad_step_on_kept_latents_is_replayed(latent_run, tmp_path):
    words = ("optimizer.lr=1e38", "trainer.gradient_clip_val=null", "trainer.max_steps=4")
    with pytest.raises(FloatingPointError, match="became NaN or infinite at step 2"):
        latent_run(*words, "data.latents=cache")
    found = replay.replay(tmp_path / "latent" / "nonfinite" / "00000002.pt")
    assert found[0].startswith("the output of")


@pytest.mark.parametrize("latents", [(), ("data.latents=cache",)])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(latent_run, stage, tmp_path, latents):
    words = ("optimizer.cosine_decay=false", *latents)
    whole = latent_run(*words, "trainer.max_steps=4")
    latent_run(*words, "trainer.max_steps=2", to="part")
    again = words_of(stage, *words, "trainer.max_steps=4", "resume.path=auto")
    train.run_train(configured("train", tmp_path / "part", *again))
    part = tmp_path / "part" / "checkpoints" / "last.ckpt"
    assert fitted(part) == fitted(whole)
    assert all(torch.equal(weight, weights(part)[name]) for name, weight in weights(whole).items())


def test_an_exported_folder_carries_its_first_stage(latent_run, stage, config, tmp_path):
    checkpoint = latent_run()
    words = (f"ckpt={checkpoint}", "format=safetensors", f"out={tmp_path / 'folder'}")
    export.run_export(composed("export", *words))
    expected = load.from_checkpoint(checkpoint, OmegaConf.create())[0].sample(2)
    moved = (tmp_path / "folder").rename(tmp_path / "moved")
    stage.rename(stage.with_suffix(".away"))
    try:
        assert torch.equal(load.from_checkpoint(moved, OmegaConf.create())[0].sample(2), expected)
        with pytest.raises(
            ValueError, match=f"does not exist; the model was trained with .*{fitted(checkpoint)['first_stage_sha256']}"
        ):
            load.from_checkpoint(checkpoint, OmegaConf.create())
    finally:
        stage.with_suffix(".away").rename(stage)


def test_another_first_stage_is_one_error_with_both_hashes(latent_run, config, tmp_path):
    checkpoint = latent_run()
    train.run_train(configured("train", tmp_path / "other", *stage_words("seed=1")))
    other = (tmp_path / "other" / "checkpoints" / "last.ckpt").resolve()
    known = fitted(checkpoint)["first_stage_sha256"]
    with pytest.raises(ValueError, match=rf"{re.escape(str(other))} has weights of sha256 \w+, but .* with {known}"):
        sample.run_sample(config("sample", f"ckpt={checkpoint}", f"+codec.first_stage={other}", "num_samples=1"))


def test_another_scale_makes_other_images(latent_run, config, tmp_path):
    words = (f"ckpt={latent_run()}", "num_samples=2", "format=npz", "trainer=cpu", f"out={tmp_path / 'out'}")
    sample.run_sample(config("sample", *words))
    with pytest.raises(ValueError, match=r"another generation.*\n.*codec.scale: .* in the folder, 2 requested"):
        sample.run_sample(config("sample", *words, "+codec.scale=2"))
    with pytest.raises(ValueError, match="the scale and shift of latents are found in training"):
        sample.run_sample(config("sample", *words, "+codec.shift=true"))


def test_a_guide_needs_the_same_latents(latent_run, config, tmp_path):
    checkpoint, kept = latent_run(), latent_run("data.latents=cache", to="kept")
    scaled, pixels = latent_run("codec.scale=2", to="scaled"), trained(tmp_path)
    for guide, message in (
        (kept, None),  # its scale differs by rounding
        (scaled, "has another first stage or scale"),
        (pixels, "has codec PixelCodec, but this model has LatentCodec"),
    ):
        words = ("num_samples=2", "guidance=autoguidance", f"guidance.guide={guide}", "trainer=cpu")
        settings = config("sample", f"ckpt={checkpoint}", *words, f"out={tmp_path / 'out'}")
        if message is None:
            sample.run_sample(settings)
        else:
            with pytest.raises(ValueError, match=message):
                sample.run_sample(settings)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("clip=static",), r"clip=StaticThresholding needs x0 in .* choose clip=none"),
        (("model.in_channels=1",), "model.in_channels must be 3"),
        (("data.size=9", "data.resize=bicubic"), "the image size must be a multiple of 4"),
        (
            ("data.size=12", "data.resize=bicubic"),
            r"12\] have latents of \[3, 3, 3\]: image size 3 x 3",
        ),
        (("codec.first_stage=???",), "codec.first_stage must be given"),
        (("data.channels=3",), "encodes images of 1 channels, but data.channels=3"),
        (("loss=vlb",), "latents have not: choose loss=simple"),
        (("codec.scale=-1",), "codec.scale must be"),
        (("cond=low_res",), r"images of \[1, 4, 4\], which cannot be concatenated to latents of \[3, 2, 2\]"),
        (("codec.first_stage=nowhere.ckpt",), "codec.first_stage=nowhere.ckpt does not exist"),
        (("data.latents=disk",), "data.latents must be one of cache"),
        (("data.latents=cache", "cond=attributes", "model=caption_unet_tiny"), "computed from the images"),
    ],
)
def test_what_does_not_fit_is_one_error_before_any_work(stage, config, tmp_path, words, message):
    settings = configured("train", tmp_path / "run", *words_of(stage, *words))
    with pytest.raises(ValueError, match=message):
        train.run_train(settings)
    assert not list(user_cache("latents").glob("*"))


def test_latents_are_kept_of_latent_models_only(small):
    with pytest.raises(ValueError, match=r"data.latents must be null without codec=latent"):
        train.run_train(small("data.latents=cache"))


def test_a_model_is_no_first_stage_and_a_first_stage_no_model(latent_run, stage, config, tmp_path):
    checkpoint = latent_run()
    with pytest.raises(ValueError, match="is a UNet, not a first stage"):
        train.run_train(configured("train", tmp_path / "run", *words_of(checkpoint)))
    with pytest.raises(ValueError, match="is a first stage, which generates no images"):
        sample.run_sample(config("sample", f"ckpt={stage}", "num_samples=1"))


def test_convolutions_sample_other_sizes_than_they_were_trained_at(latent_run, config, tmp_path):
    """The first samples of a wide image differ from those of a small one, whose noise has another shape."""
    words = (f"ckpt={latent_run()}", "num_samples=2", "format=npz", "trainer=cpu")
    sample.run_sample(config("sample", *words, f"out={tmp_path / 'wide'}", "size=[8,24]"))
    assert np.load(tmp_path / "wide" / "samples.npz")["arr_0"].shape[:3] == (2, 8, 24)
    with pytest.raises(ValueError, match="the image size must be a multiple of 4"):
        sample.run_sample(config("sample", *words, f"out={tmp_path / 'odd'}", "size=10"))
    assert not (tmp_path / "odd").exists()


@pytest.mark.parametrize("metric", ["nll", "nll_ode"])
def test_likelihoods_of_latents_are_named_as_such(latent_run, config, tmp_path, metric):
    words = (f"ckpt={latent_run()}", f"metric={metric}", f"metric.{metric}.num_images=4", f"out={tmp_path / 'out'}")
    evaluate.run_evaluate(config("evaluate", *words, "trainer=cpu"))
    (result,) = (tmp_path / "out").glob("*.json")
    assert f"latent_{metric}" in result.name


def test_bits_of_pixels_are_refused(latent_run, config):
    with pytest.raises(ValueError, match="latents have not: use metric=nll"):
        evaluate.run_evaluate(config("evaluate", f"ckpt={latent_run()}", "metric=rate_distortion", "trainer=cpu"))
