"""First stages and models of latents as folders of diffusers, opened and run there, and read back."""

import json

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, VQModel
from diffusers.pipelines.deprecated.latent_diffusion_uncond import pipeline_latent_diffusion_uncond as their_pipeline
from diffusers.schedulers import scheduling_ddpm
from networks import awake
from omegaconf import OmegaConf
from precision import InDouble, assert_same
from small_models import QUICK, Quarters
from small_runs import composed, configured

from ddpm.commands import evaluate, export, sample, train
from ddpm.config import codec, load
from ddpm.config.codec import with_latent_shape
from ddpm.config.model import build_model
from ddpm.networks.autoencoder import Autoencoder

IDS = torch.arange(3)
STAGE = ("model.base_channels=8", "model.num_groups=4", "ema.decay=[]", "data=digits")
KINDS = {"autoencoder_tiny": AutoencoderKL, "autoencoder_vq_tiny": VQModel}


@pytest.fixture
def saved(small, tmp_path):
    """`saved("stage", "model=autoencoder_tiny")`: the file of a model that nobody trained."""

    def save(name, *words, **fitted):
        settings = with_latent_shape(small(*words), load.guide)
        model = awake(build_model(settings, fitted, load.guide)).float()
        if isinstance(model.network, Autoencoder):  # grey images
            model.network.decoder.out.weight.data /= 20
            model.network.decoder.out.bias.data -= 1
        path = tmp_path / name / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True)
        torch.save({"config": model.config, "state_dict": model.state_dict()}, path)
        return path

    return save


@pytest.fixture
def stage(saved):
    return lambda name: saved("stage", f"model={name}", *STAGE)


@pytest.fixture
def latent(saved, stage):
    """The file of a model of the latents of a first stage."""

    def save(name, *words):
        model = ("model=unet_tiny", "model.channel_mults=[1,2]", "model.attention_levels=[0]")
        choices = (
            "data.size=16",
            f"codec.first_stage={stage(name)}",
            "codec=latent",
            "codec.scale=0.7",
            "clip=none",
            "data=digits",
        )
        words = (*model, *choices, "schedule.num_timesteps=20", "sampler.steps=null", "ema.decay=[]", *words)
        return saved("latent", *words)

    return save


def exported(path, folder, *words):
    export.run_export(composed("export", f"ckpt={path}", f"out={folder}", *words))
    return folder


@torch.no_grad()
@pytest.mark.parametrize("name", KINDS)
def test_an_exported_first_stage_opens_in_diffusers_and_here(stage, tmp_path, name, capsys):
    path = stage(name)
    folder = exported(path, tmp_path / "out", "format=diffusers")
    theirs, notes = KINDS[name].from_pretrained(folder, output_loading_info=True)
    assert not any(notes.values())
    assert f"{KINDS[name].__name__}.from_pretrained({str(folder)!r})" in capsys.readouterr().out
    ours, again = (load.guide(each, codec.FIRST_STAGE).network.double() for each in (path, folder))
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    encoded = theirs.double().encode(x)
    z = encoded.latents if name == "autoencoder_vq_tiny" else encoded.latent_dist.mean
    for network in (ours, again):
        assert_same(network.mean(network.moments(x)), z)
        assert_same(network.decode(z), theirs.decode(z).sample)
    assert codec.published_scale(folder, load.guide) == 1.0


ADM = ("++model.convention=adm", "++model.head_channels=8")


@torch.no_grad()
@pytest.mark.parametrize(("name", "words"), [("autoencoder_tiny", ()), ("autoencoder_vq_tiny", ADM)])
def test_the_pipeline_of_diffusers_draws_our_images_from_our_noise(latent, tmp_path, monkeypatch, name, words, capsys):
    path = latent(name, *words)
    folder = exported(path, tmp_path / "out", "format=diffusers")
    assert f"LDMPipeline.from_pretrained({str(folder)!r})(num_inference_steps=20)" in capsys.readouterr().out
    model = load.guide(path)
    prior = model.start(IDS).double()
    model.start = lambda ids, images=None: prior
    model.codec.network.double()
    model = model.double()
    expected = (model.generate(IDS, "raw") / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    monkeypatch.setattr(scheduling_ddpm, "torch", InDouble())
    pipe = diffusers.LDMPipeline.from_pretrained(folder).to(torch.float64)
    pipe.set_progress_bar_config(disable=True)
    times = model.sampler.times(model.sampler.process.T)
    draws = (model.sample_rng.at(s, IDS).normal("step", model.latent_shape).double() for s in times[1:])
    monkeypatch.setattr(their_pipeline, "randn_tensor", lambda shape, **kwargs: prior.clone().reshape(shape))
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *args, **kwargs: next(draws))
    images = pipe(batch_size=len(IDS), num_inference_steps=20, output_type="np").images
    assert_same(torch.from_numpy(images), expected, 1e-8)
    assert ((expected > 0) & (expected < 1)).double().mean() > 0.2
    again = load.guide(folder)
    assert again.codec.scale == 0.7
    again.start = lambda ids, images=None: prior
    again.codec.network.double()
    assert_same((again.double().generate(IDS, "raw") / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1), expected)


def test_a_published_model_of_latents_is_exported_with_its_first_stage(latent, tmp_path):
    theirs = exported(latent("autoencoder_vq_tiny"), tmp_path / "theirs", "format=diffusers")
    ours = exported(theirs, tmp_path / "ours", "format=safetensors")
    expected = load.guide(theirs).generate(IDS, "raw")
    (theirs / "vqvae" / "config.json").unlink()
    assert torch.equal(load.guide(ours).generate(IDS, "raw"), expected)


def test_another_first_stage_than_that_of_the_folder_is_refused(latent, saved, tmp_path):
    folder = exported(latent("autoencoder_tiny"), tmp_path / "theirs", "format=diffusers")
    other = saved("other", "model=autoencoder_tiny", "model.channel_mults=[1,1]", *STAGE)
    with pytest.raises(ValueError, match="but the model was trained with"):
        load.from_checkpoint(folder, OmegaConf.create({"codec": {"first_stage": str(other)}}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("++model.num_heads=8",), r"^model\.num_heads must be 1 to save for diffusers"),
        (("data.size=[16,24]",), "only square ones can"),
        (("++model.self_condition=true",), r"^model\.self_condition must be False to save for diffusers"),
        (("objective=eps", "sampler=unipc"), "sampler must be Ancestral or DDIM"),
    ],
)
def test_what_diffusers_cannot_say_is_one_line_and_no_folder(latent, tmp_path, words, message):
    path = latent("autoencoder_tiny", *words)
    with pytest.raises(ValueError, match=message):
        exported(path, tmp_path / "out", "format=diffusers")
    assert not (tmp_path / "out").exists()


def test_a_first_stage_that_diffusers_cannot_say_is_refused_by_name(saved, tmp_path):
    path = saved("stage", "model=autoencoder_tiny", "model.patch_size=2", *STAGE)
    with pytest.raises(ValueError, match=r"^model\.patch_size must be 1 to save for diffusers"):
        exported(path, tmp_path / "out", "format=diffusers")


@pytest.mark.filterwarnings("ignore:FID of")
def test_a_published_first_stage_is_measured_as_one_of_ours(config, stage, tmp_path, monkeypatch):
    monkeypatch.setattr("ddpm.metrics.extractors.usual.Inception", Quarters)
    path, found = stage("autoencoder_tiny"), []
    for place in (path, exported(path, tmp_path / "theirs", "format=diffusers")):
        words = ("metric=reconstruction", "trainer=cpu", "data=digits", "data.num_val=32", f"out={tmp_path / 'found'}")
        evaluate.run_evaluate(config("evaluate", f"ckpt={place}", *words))
        (file,) = (tmp_path / "found").glob("*.json")
        found.append(json.loads(file.read_text())["metrics"])
        file.unlink()
    assert found[0] == found[1]
    with pytest.raises(ValueError, match=r"ckpt=.* is a first stage"):
        sample.run_sample(config("sample", f"ckpt={tmp_path / 'theirs'}", "trainer=cpu"))


def test_a_training_takes_the_published_scale_and_stores_the_number(small, stage, tmp_path):
    path = stage("autoencoder_tiny")
    folder = exported(path, tmp_path / "theirs", "format=diffusers")
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**about, "scaling_factor": 0.25}))
    words = ("codec=latent", "codec.scale=published", "clip=none")
    run = tmp_path / "run"
    quick = (*QUICK, "trainer.max_steps=1", "model.channel_mults=[1]", f"run_dir={run}")
    train.run_train(configured("train", run, *quick, f"codec.first_stage={folder}", *words))
    model, stored = load.from_checkpoint(run / "checkpoints" / "last.ckpt", OmegaConf.create())
    assert (model.codec.scale, stored.codec.scale) == (0.25, 0.25)
    with pytest.raises(ValueError, match=r"^codec\.scale must be null or a number, because .* states no scale"):
        with_latent_shape(small(f"codec.first_stage={path}", *words), load.guide)


def test_the_command_draws_from_a_folder_of_a_model_of_latents(config, latent, tmp_path):
    folder = exported(latent("autoencoder_vq_tiny"), tmp_path / "theirs", "format=diffusers")
    words = (f"ckpt={folder}", "num_samples=3", "format=npz", f"out={tmp_path / 'drawn'}", "trainer=cpu")
    sample.run_sample(config("sample", *words, "+sampler.steps=2"))
    assert np.load(tmp_path / "drawn" / "samples.npz")["arr_0"].shape == (3, 16, 16, 1)
