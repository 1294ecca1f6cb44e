"""Conditions that are concatenated to x_t: small images, masked images and label images, from train.py to sample.py."""

import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from small_models import QUICK, Quarters
from small_runs import configured
from test_latent_diffusion import stage_words
from test_memory import in_little_memory

from ddpm.commands import evaluate, sample, train
from ddpm.config import build, load

STEPS = ("trainer.max_steps=2", "sampler.steps=2", "clip=none")


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A first stage that makes 3 x 2 x 2 latents of 8 x 8 digits in 3 channels."""
    folder = tmp_path_factory.mktemp("stage")
    words = ("model=autoencoder_vq_tiny", "loss=first_stage_vq", "data.channels=3")
    train.run_train(configured("train", folder / "stage", *stage_words(*words)))
    return folder / "stage" / "checkpoints" / "last.ckpt"


@pytest.fixture
def trained(stage, tmp_path):
    """`trained("cond=masked")`: the checkpoint of two steps on latents, or on pixels."""

    def done(*words, latent=True, to="run"):
        codec = ("codec=latent", f"codec.first_stage={stage}") if latent else ()
        train.run_train(configured("train", tmp_path / to, *QUICK, "data.channels=3", *codec, *STEPS, *words))
        return tmp_path / to / "checkpoints" / "last.ckpt"

    return done


@pytest.fixture
def do(tmp_path):
    """`do("inpaint", ckpt, "task.images=2")`: the arrays and numbers that sample.py writes."""

    def done(task, checkpoint, *words):
        out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
        settings = (f"ckpt={checkpoint}", f"task={task}", "trainer=cpu", f"out={out}")
        sample.run_sample(configured("sample", tmp_path, *settings, *words))
        arrays = np.load(out / f"{task}.npz")
        return {name: torch.from_numpy(array) for name, array in arrays.items()}, json.loads(
            (out / f"{task}.json").read_text()
        )

    return done


def loaded(checkpoint):
    return load.from_checkpoint(checkpoint, OmegaConf.create())[0]


# Small images


def test_a_latent_model_gets_small_images_as_pixels(trained, do):
    checkpoint = trained("cond=low_res", "cond.factor=4", "data.num_val=40")
    model = loaded(checkpoint)
    assert model.latent_shape == (3, 2, 2)
    assert model.network.stem.in_channels == 6
    arrays, _ = do("upsample", checkpoint, "task.images=2", "task.num_samples=3")
    assert arrays["small"].shape == (2, 3, 2, 2)
    assert arrays["samples"].shape == (2, 3, 3, 8, 8)


def test_a_checkpoint_of_the_former_name_gives_the_same_samples(trained, do, tmp_path):
    checkpoint = trained("cond=low_res", "+model.concat_channels=true", "data.num_val=40", latent=False)
    former = torch.load(checkpoint, weights_only=False)
    former["config"]["model"]["low_res"] = former["config"]["model"].pop("concat_channels")
    torch.save(former, tmp_path / "former.ckpt")
    (found, _), (expected, _) = (
        do("upsample", path, "task.images=2") for path in (tmp_path / "former.ckpt", checkpoint)
    )
    assert torch.equal(found["samples"], expected["samples"])


# Masked images


@pytest.mark.parametrize("latent", [True, False])
def test_a_model_of_masked_images_fills_the_hole_and_keeps_the_rest(trained, do, latent):
    checkpoint = trained("cond=masked", latent=latent)
    assert loaded(checkpoint).network.stem.in_channels == 3 + 3 + 1
    words = ("task.images=[3,8]", "task.num_completions=3", "task.mask=center")
    arrays, figures = do("inpaint", checkpoint, *words)
    completions, originals = arrays["completions"], arrays["originals"]
    assert completions.shape == (2, 3, 3, 8, 8)
    hole = torch.zeros(8, 8, dtype=torch.bool)
    hole[2:6, 2:6] = True
    assert completions[..., ~hole].equal(originals[:, None].expand_as(completions)[..., ~hole])
    assert not completions[:, 0][..., hole].equal(completions[:, 1][..., hole])
    assert figures["steps_down"] == 2
    for field in ("num_resamples", "jump_length"):
        with pytest.raises(ValueError, match=f"task.{field} has no effect on a model with cond=masked"):
            do("inpaint", checkpoint, *words, f"task.{field}=4")


def test_the_condition_of_a_latent_model_is_the_code_before_quantisation_and_the_mask(trained):
    model = loaded(trained("cond=masked"))
    image, hole = torch.rand(2, 3, 8, 8) * 2 - 1, torch.zeros(2, 1, 8, 8)
    hole[:, :, :4] = 1
    with torch.no_grad():
        told = model.condition.of({"image": image, "hole": hole})["concat"]
        code = model.codec.network.moments(torch.where(hole > 0, -1.0, image)) * model.codec.scale
    assert torch.equal(told[:, :3], code)
    assert told[:, 3].tolist() == [[[1, 1], [-1, -1]]] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("cond=masked", "model=ldm_tiny"), "model=ClassTokenUNet does not support cond=Masked"),
        (("cond=masked", "data.latents=cache"), "null with cond=Masked, which is computed from the images"),
        (("cond=masked", "+model.concat_channels=3"), "concat_channels must be 4, which cond needs"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(trained, words, message):
    with pytest.raises(ValueError, match=message):
        trained(*words)


def test_a_mask_of_another_size_and_a_task_without_images_are_refused(trained, do, tmp_path):
    checkpoint = trained("cond=masked")
    Image.new("L", (9, 8), 255).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"task.mask must be a mask of the images' size, 8 x 8, got '8 x 9'"):
        do("inpaint", checkpoint, f"task.mask={tmp_path / 'mask.png'}")
    with pytest.raises(ValueError, match=r"conditioned on real images \(Masked\): choose task=inpaint"):
        do("generate", checkpoint)


def test_a_dry_run_needs_no_scale(trained, capsys):
    trained("cond=masked", "dry_run=true")
    assert "FLOPs per image" in capsys.readouterr().out


# Label images


@pytest.fixture
def labelled(tmp_path):
    """Words for 20 images of two colours and their label images; label 1 is the right part."""
    for number in range(20):
        labels = np.zeros((8, 8), dtype=np.uint8)
        labels[:, number % 8 :] = 1
        for root, array in (("images", np.stack([labels * 200] * 3, axis=2)), ("labels", labels)):
            (tmp_path / root).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / root / f"{number}.png")
    folders = (f"data.source.root={tmp_path / 'images'}", f"data.label_images={tmp_path / 'labels'}")
    data = ("data=folder", "data.size=8", "data.num_workers=0", *folders, "data.num_labels=3")
    network = ("model.channel_mults=[1]", "model.num_res_blocks=1", "model.num_heads=1")
    return (*data, "data.batch_size=4", "data.flip=true", "model=ldm_semantic", *network, "cond=semantic")


@pytest.mark.parametrize("latent", [True, False])
def test_a_model_of_label_images_trains_their_convolution_and_samples_from_them(trained, do, labelled, latent):
    checkpoint = trained(*labelled, latent=latent)
    arrays, _ = do("label_maps", checkpoint, "task.images=[3,8]", "task.num_samples=3")
    assert arrays["samples"].shape == (2, 3, 3, 8, 8)
    assert arrays["labels"].equal((arrays["originals"][:, 0] > 0).long())
    weights = torch.load(checkpoint)["state_dict"]
    raw, averaged = (weights[f"{name}.labels.weight"] for name in ("network", "averages.copies.0"))
    assert raw.shape == averaged.shape == (3, 3, 1, 1)
    if not latent:
        untrained = build.module(OmegaConf.create(torch.load(checkpoint)["config"])).network
        assert not torch.equal(raw, untrained.labels.weight)


def test_images_for_label_maps_that_do_not_fit_in_memory_are_refused(trained, do, labelled, monkeypatch):
    checkpoint = trained(*labelled, latent=False)
    in_little_memory(monkeypatch)
    with pytest.raises(ValueError, match=r"images of 3 x 8 x 8 \(.*\) takes .* GB of memory"):
        do("label_maps", checkpoint)


def test_a_metric_compares_samples_of_the_label_images_of_the_data(trained, labelled, tmp_path, monkeypatch):
    monkeypatch.setattr("ddpm.metrics.extractors.usual.usual", lambda data: Quarters())
    words = (f"ckpt={trained(*labelled, latent=False)}", "metric=fid", "num_samples=8", "trainer=cpu")
    with pytest.warns(UserWarning, match="FID of 8 generated against 20 real images"):
        evaluate.run_evaluate(configured("evaluate", tmp_path, *words, f"out={tmp_path / 'results'}"))
    (result,) = (tmp_path / "results").glob("*.json")
    assert "fid_quarters_8" in json.loads(result.read_text())["metrics"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.label_images=null",), "cond=semantic needs label images: data.label_images=FOLDER"),
        (("data.num_labels=null",), "cond=semantic needs label images: .*data.num_labels=182|num_labels must be"),
        (("data.num_labels=1",), "has the label 1, but data.num_labels is 1"),
        (("cond=none", "model=unet_tiny", "model.patch_size=1"), "data.label_images has no effect without"),
        (("data.latents=cache",), "null with cond=Semantic"),
        (("model=unet_tiny",), "model=UNet does not support cond=Semantic"),
    ],
)
def test_labels_that_do_not_fit_are_one_error(trained, labelled, words, message):
    with pytest.raises(ValueError, match=message):
        trained(*labelled, *words)


def test_label_images_are_asked_for_when_sampling_too(trained, do, labelled):
    checkpoint = trained(*labelled, latent=False)
    with pytest.raises(ValueError, match=r"conditioned on real images \(Semantic\): choose task=label_maps"):
        do("generate", checkpoint)
    with pytest.raises(ValueError, match=r"these data have none: data\.label_images=FOLDER"):
        do("label_maps", checkpoint, "data=digits", "data.channels=3")
    other = trained("cond=none", latent=False, to="other")
    with pytest.raises(ValueError, match="needs a model with cond=semantic, but this has NoCondition"):
        do("label_maps", other)
