"""Configurations for networks of improved-diffusion and guided-diffusion."""

from ddpm.interop.configuration import Config, all_groups, class_label, leaf, schedule
from ddpm.interop.openai import OpenAIModel
from ddpm.interop.openai_flags import Flags
from ddpm.interop.scheduler import Scheduler
from ddpm.networks.classifier import Classifier


def openai_configuration(pretrained: OpenAIModel) -> Config:
    """The configuration of the model, with the sampler of the original code: all steps, learned or large variance.

    For a classifier, it is the configuration of its training.
    """
    flags, settings = pretrained.flags, pretrained.settings
    model = {"_target_": f"{pretrained.builder.__module__}.{pretrained.builder.__name__}", **settings}
    config = all_groups(model, [flags.image_size] * 2, schedule_config(flags), "X0" if flags.predict_xstart else "Eps")
    conditions = {}
    if settings["num_classes"]:  # trained without dropped labels
        conditions["class"] = class_label(settings["num_classes"], dropout=0.0)
    if flags.small_size:
        fields = {"factor": flags.image_size // flags.small_size, "dropout": 0.0}
        conditions["low_res"] = leaf("diffusion.conditions.low_resolution.LowResolution", **fields)
    if conditions:
        config["cond"], *others = conditions.values()
        if others:
            config["cond"] = leaf("diffusion.conditions.base.Several", parts=conditions)
    if pretrained.builder is Classifier:
        loss = leaf("diffusion.losses.classification.Classification", _partial_=True, time_sampler="${time_sampler}")
        return {**config, "loss": loss}
    if settings["out_channels"] == settings["in_channels"]:
        name = "FixedSmall" if flags.sigma_small else "PublishedFixedLarge"
        return {**config, "variance": leaf(f"diffusion.variance.{name}")}
    references = {group: f"${{{group}}}" for group in ("time_sampler", "weight", "error", "variance")}
    hybrid = leaf("diffusion.losses.vlb.HybridLoss", _partial_=True, **references, vlb_weight=0.001)
    return {**config, "variance": leaf("diffusion.variance.LearnedRange"), "loss": hybrid}


def schedule_config(flags: Flags) -> Config:
    """The configuration of the schedule. Linear betas are rescaled to reach the same noise for any number of steps."""
    if flags.noise_schedule == "cosine":
        return schedule(Scheduler(flags.diffusion_steps, "squaredcos_cap_v2"))
    return {**schedule(Scheduler(flags.diffusion_steps)), "rescale": True}
