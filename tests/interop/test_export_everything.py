"""Each setting that changes the samples is in an exported folder of diffusers, in the printed line, or in an error."""

import json

import pytest
import torch
from networks import awake
from omegaconf import OmegaConf
from small_models import QUICK
from small_runs import ROOT, composed

from ddpm.checkpoint import groups
from ddpm.commands import export
from ddpm.config import load
from ddpm.config.model import build_model

IDS = torch.arange(2)
WORDS = ("ema.decay=[]", "schedule=cosine", "schedule.num_timesteps=12", "sampler.steps=4")
SEPARATE = {"model", "schedule", "codec", "text"}
"""Groups with tests of their own: networks, `test_every_schedule_is_said_in_words_of_diffusers` and first stages."""
VALUES = {
    "timestep_spacing.sections": "[1,3]",
    "timestep_spacing.times": "[12,5,2]",
    "variance.num_images": None,  # of an estimate
    "variance.num_times": None,
    "noise.unit_variance": "false",
    "guidance.order": "[clip,guidance]",
    "guidance.interval": "[0.1,1]",
    "guidance.rescale": "0.5",
    "guidance.rescale_of": "output",
    "guidance.form": "epsilon",
    "guidance.at": "mean",
    "process.reverse_noise": "white",
    "sampler.latent": None,  # of a generator
    "sampler.steps": "3",
    "noise.discount": "0.7",
    "process.kernel": "13",
    "cond.dropout": "0.5",
    "cond.factor": "4",
    "cond.negative": "grey",
    "sampler.clipped_eps": "false",
    "clip.percentile": "0.3",
    "clip.largest": "1.1",
}
BESIDE = {"timestep_spacing=respaced timestep_spacing.sections=[1,3]": ("sampler.steps=null",)}
BESIDE["timestep_spacing=custom"] = ("sampler.steps=null", "timestep_spacing.times=[12,7,2]")
BESIDE["timestep_spacing=custom timestep_spacing.times=[12,5,2]"] = ("sampler.steps=null",)
STEPS = ("schedule=steps", "schedule.num_timesteps=12", "objective=x0", "weight=uniform", "sampler=cold")
NEEDED = {
    **dict.fromkeys(("blur", "decolor", "fade", "mask", "pixelate", "snow", "snowfall"), STEPS),
    **dict.fromkeys(("binomial", "logit"), ("codec=binary",)),
    **dict.fromkeys(("large", "large_published"), ("sampler.steps=null",)),
    "learned_range": ("sampler.steps=null", "loss=hybrid"),
    "classifier_free": ("cond=class",),
    "attributes": ("model=caption_unet_tiny",),
    "semantic": ("cond.num_labels=3", "model=ldm_semantic", "model.in_channels=1", "model.out_channels=1"),
    "dynamic": ("clip.percentile=0.5",),
    "pyramid": ("noise.discount=0.5",),
}
"""Words without which an option is refused or has no effect."""
CLASSIFIER = ("model=classifier_tiny", "model.head_channels=8", "loss=classification", "cond=class")


def another(field, value):
    if field in VALUES:
        return VALUES[field]
    return str(not value).lower() if isinstance(value, bool) else "1" if value == float("inf") else f"{value + 1}"


def choices():
    """A choice of an option in words, and one with each of its fields changed."""
    decisive = {*groups.group_names(decides_images=True), "sampler", "variance", "timestep_spacing"}
    for group in sorted(decisive - SEPARATE):
        for path in sorted((ROOT / "conf" / group).glob("*.yaml")):
            choice = f"{group}={path.stem}"
            if choice == "cond=caption":  # its texts: test_text_pipelines.py
                continue
            yield choice
            leaf = OmegaConf.to_container(OmegaConf.load(path))
            for field in sorted(
                leaf.keys() - {"_target_", "_partial_", "defaults", "timestep_spacing", "variance", "of"}
            ):
                value = leaf[field]
                if f"{group}.{field}" in VALUES or isinstance(value, bool | int | float):
                    changed = another(f"{group}.{field}", value)
                    if changed is not None:
                        yield f"{choice} {group}.{field}={changed}"


@pytest.fixture(scope="module")
def guides(tmp_path_factory):
    """The words of a guidance that name another network."""
    folder = tmp_path_factory.mktemp("guides")
    classifier = saved(folder / "classifier.ckpt", *CLASSIFIER)
    return {
        "guidance=autoguidance": (f"guidance.guide={saved(folder / 'guide.ckpt')}",),
        "guidance=classifier": (f"guidance.classifier={classifier}",),
    }


def saved(path, *words):
    model = built(*words)
    for weights in model.network.parameters():
        weights.data *= 0.8  # not those of the model that it guides
    torch.save({"config": model.config, "state_dict": model.state_dict()}, path)
    return str(path)


def built(*words):
    config = composed("train", "experiment=mnist", *QUICK, *WORDS, *words)
    model = awake(build_model(config, {}, load.guide)).float().eval()
    model.use_for_prediction("raw", seed=0)
    return model


def told(model, folder):
    """All that an export tells of the settings: the files and the printed line; or the error."""
    folder.mkdir()
    try:
        line = export.write_diffusers(folder, model, OmegaConf.create(model.config), {})
    except ValueError as error:
        return None, str(error)
    line = line.format(out="out", steps=model.sampler.steps)
    return [{path.name: json.loads(path.read_text()) for path in folder.rglob("*.json")}, line], ""


def images(model):
    labels = {"label": torch.tensor([1, 2])} if model.sample_condition.network_settings else None
    return model.generate(IDS, "raw", labels)


@pytest.mark.parametrize("choice", [*choices()])
def test_a_setting_that_changes_the_samples_is_told(tmp_path, guides, choice):
    option = choice.split()[0]
    group, _, name = option.partition("=")
    needed = NEEDED.get(name, ())
    model = built(*needed, *choice.split(), *BESIDE.get(choice, ()), *guides.get(option, ()))
    found, error = told(model, tmp_path / "one")
    if found is None:
        assert error.startswith((group, "cond must be", "timestep_spacing must be"))
        return
    plain = built(*(word for word in needed if not word.startswith(f"{group}.")))
    assert found != told(plain, tmp_path / "two")[0] or torch.equal(images(model), images(plain))
