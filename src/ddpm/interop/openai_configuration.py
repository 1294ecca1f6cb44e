"""A network of improved-diffusion or guided-diffusion as a configuration of this project."""

from typing import Any

from ddpm.interop.configuration import Config, all_groups, schedule
from ddpm.interop.diffusers import Scheduler
from ddpm.interop.openai import OpenAIModel
from ddpm.interop.openai_flags import Flags

TARGETS = {"unet": "ddpm.networks.unet.UNet", "classifier": "ddpm.networks.classifier.Classifier"}


def openai_configuration(pretrained: OpenAIModel) -> Config:
    """What build.module needs. The sampler is theirs: all steps, with the learned variance or the large one.

    A classifier is no model of images; its configuration is that of its training.
    """
    flags, settings = pretrained.flags, pretrained.settings
    is_classifier, num_classes = pretrained.architecture.kind == "classifier", settings["num_classes"]
    model = {"_target_": TARGETS[pretrained.architecture.kind], **settings}
    config = all_groups(model, [flags.image_size] * 2, schedule_config(flags), "X0" if flags.predict_xstart else "Eps")
    conditions = {}
    if num_classes:
        conditions["class"] = class_config(num_classes)
    if flags.small_size:
        conditions["low_res"] = small_images(flags.image_size // flags.small_size)
    if conditions:
        target = "ddpm.diffusion.condition.Several"
        config["cond"] = (
            next(iter(conditions.values())) if len(conditions) == 1 else {"_target_": target, "parts": conditions}
        )
    if is_classifier:
        config["loss"] = loss("classification.Classification", "time_sampler")
    elif settings["out_channels"] == settings["in_channels"]:
        config["variance"] = variance("FixedSmall" if flags.sigma_small else "FixedLarge")
    else:
        config["variance"] = variance("LearnedRange")
        hybrid = loss("hybrid.HybridLoss", "time_sampler", "weight", "error", "variance")
        config["loss"] = {**hybrid, "vlb_weight": 0.001}
    return config


def schedule_config(flags: Flags) -> Config:
    """The leaf of conf/schedule. Their linear betas end at the same noise for any number of steps."""
    if flags.noise_schedule == "cosine":
        return schedule(Scheduler(flags.diffusion_steps, "squaredcos_cap_v2"))
    return {**schedule(Scheduler(flags.diffusion_steps)), "rescale": True}


def class_config(number: int) -> Config:
    """The leaf of conf/cond for so many classes, none of which was hidden in training."""
    target = "ddpm.diffusion.condition.ClassLabel"
    return {"_target_": target, "num_classes": number, "dropout": 0.0, "names": None}


def small_images(factor: int) -> Config:
    """The leaf of conf/cond for so many times smaller images, which are never dropped."""
    return {"_target_": "ddpm.diffusion.low_resolution.LowResolution", "factor": factor, "dropout": 0.0}


def variance(name: str) -> dict[str, Any]:
    return {"_target_": f"ddpm.diffusion.variance.{name}"}


def loss(name: str, *groups: str) -> Config:
    """groups: whose parts it has."""
    references = {group: f"${{{group}}}" for group in groups}
    return {"_target_": f"ddpm.diffusion.losses.{name}", "_partial_": True, **references}
