"""Configurations for models of other programs, so that commands can use them like checkpoints."""

from dataclasses import replace
from typing import Any

from ddpm.base import check
from ddpm.interop.diffusers import DiffusersModel
from ddpm.interop.diffusers_classes import guidance_of
from ddpm.interop.diffusers_files import refuse
from ddpm.interop.scheduler import ANCESTRAL, Scheduler, Solver

Config = dict[str, Any]
OBJECTIVES = {"epsilon": "Eps", "sample": "X0", "v_prediction": "V"}


def leaf(target: str, **fields: Any) -> Config:
    return {"_target_": f"ddpm.{target}", **fields}


def schedule(scheduler: Scheduler) -> Config:
    """The configuration of a schedule with the same betas. Raises ValueError if there is none."""
    timesteps = {"num_timesteps": scheduler.num_train_timesteps}
    if scheduler.rescale_betas_zero_snr:
        of = schedule(replace(scheduler, rescale_betas_zero_snr=False))
        floor = {"floor": scheduler.floor} if scheduler.floor else {}
        return leaf("diffusion.schedules.adjusted.zero_terminal_snr", **timesteps, of=of, **floor)
    if scheduler.trained_betas is not None:
        return leaf("diffusion.schedules.betas.trained", **timesteps, betas=list(scheduler.trained_betas))
    if scheduler.beta_schedule == "squaredcos_cap_v2":
        return leaf("diffusion.schedules.curves.cosine", **timesteps, offset=0.008, max_beta=0.999)
    names = {"linear": "linear", "scaled_linear": "quadratic", "sigmoid": "sigmoid_beta"}
    if scheduler.beta_schedule not in names:
        known = ", ".join([*names, "squaredcos_cap_v2"])
        raise ValueError(f"beta_schedule must be one of {known}, got {scheduler.beta_schedule!r}")
    name = names[scheduler.beta_schedule]
    betas = {"beta_start": scheduler.beta_start, "beta_end": scheduler.beta_end, "rescale": False}
    return leaf(f"diffusion.schedules.betas.{name}", **timesteps, **betas)


def averages(*decays: float) -> Config:
    """The configuration of averages with these decays."""
    return leaf("model.ema.WeightAverages", _partial_=True, decay=list(decays))


def diffusers_configuration(pretrained: DiffusersModel) -> Config:
    """The configuration for sampling, with the sampler of the scheduler and all steps."""
    scheduler = pretrained.scheduler or Scheduler()
    settings = pretrained.network.settings
    model = leaf("networks.unet.UNet", **settings)
    config = all_groups(model, pretrained.sample_size, schedule(scheduler), objective_of(scheduler))
    if num_classes := settings["num_classes"]:
        dropout = 0.0 if pretrained.classes.get("null_class") is None else 0.1  # above 0; not stated in the folder
        config["cond"] = class_label(num_classes, dropout)
    if guidance := guidance_of(pretrained.classes):
        config["guidance"] = guidance
    return config | sampling_parts(scheduler, settings)


def class_label(num_classes: int, dropout: float) -> Config:
    """The configuration of a condition on classes, whose names are unknown."""
    return leaf("diffusion.conditions.base.ClassLabel", num_classes=num_classes, dropout=dropout, names=None)


VARIANCES = {
    **{"fixed_small": "FixedSmall", "fixed_small_log": "FixedSmall", "fixed_large": "FixedLarge"},
    "learned_range": "LearnedRange",
}
SPACINGS = {
    "leading": "published_spacing.leading",
    "linspace": "published_spacing.linspace",
    "trailing": "timestep_spacing.trailing",
}
"""The spacings of diffusers. All are the same with all steps, which is the default after loading."""


def sampling_parts(scheduler: Scheduler, settings: dict[str, Any]) -> Config:
    """The groups that say how a sampler uses a prediction. settings: of the network."""
    kind, channels = scheduler.variance_type, settings["in_channels"]
    if kind not in VARIANCES:
        reason = (
            "diffusers samples NaN with it" if kind == "fixed_large_log" else f"only {', '.join(VARIANCES)} are known"
        )
        refuse("variance_type", kind, reason)
    if kind == "learned_range" and settings["out_channels"] != 2 * channels:
        refuse("variance_type", kind, f"the network needs out_channels = {2 * channels}, twice its in_channels")
    if scheduler.timestep_spacing not in SPACINGS:
        refuse("timestep_spacing", scheduler.timestep_spacing, f"only {', '.join(SPACINGS)} are known")
    check.non_negative_int("steps_offset", scheduler.steps_offset)
    offset = {"offset": scheduler.steps_offset} if scheduler.timestep_spacing == "leading" else {}
    spacing = leaf(f"diffusion.samplers.{SPACINGS[scheduler.timestep_spacing]}", _partial_=True, **offset)
    if scheduler.multistep and scheduler.timestep_spacing != "trailing":
        spacing = leaf("diffusion.samplers.published_spacing.without_last", _partial_=True, of=spacing)
    if scheduler.ends_at_1:
        spacing = leaf("diffusion.samplers.published_spacing.ending_at_1", _partial_=True, of=spacing)
    if scheduler.thresholding:
        bounds = {"percentile": scheduler.dynamic_thresholding_ratio, "largest": scheduler.sample_max_value}
        clip = leaf("diffusion.denoiser.DynamicThresholding", _partial_=True, **bounds)
    elif scheduler.clip_sample:
        largest = {} if scheduler.clip_sample_range == 1 else {"largest": scheduler.clip_sample_range}
        clip = leaf("diffusion.denoiser.StaticThresholding", _partial_=True, **largest)
    else:
        clip = leaf("diffusion.denoiser.no_wrapper", _partial_=True)
    return {
        "variance": leaf(f"diffusion.variance.{VARIANCES[kind]}"),
        "timestep_spacing": spacing,
        "clip": clip,
        "sampler": sampler_leaf(scheduler.solver),
    }


def sampler_leaf(solver: Solver | str) -> Config:
    """With all steps. A reason for which there is no sampler is raised when the model is built with it."""
    if isinstance(solver, str):
        return leaf("interop.scheduler.no_equal", _partial_=True, reason=solver, steps=None)
    name, settings = solver
    times = {"steps": None, "timestep_spacing": "${timestep_spacing}"}
    return leaf(f"diffusion.samplers.{name}", _partial_=True, **times, **settings)


def objective_of(scheduler: Scheduler) -> str:
    """The name of the class."""
    return OBJECTIVES[check.one_of("prediction_type", scheduler.prediction_type, OBJECTIVES)]


def all_groups(model: Config, size: list[int] | None, betas: Config, objective: str) -> Config:
    """A complete configuration, with the simplest option for all groups that are not given.

    model, betas: configurations of network and schedule. size: height and width. objective: name of its class.
    """
    partial = {"_partial_": True}
    of_the_loss = {name: f"${{{name}}}" for name in ("time_sampler", "weight", "error")}
    rates = {"lr": 2e-4, "warmup_steps": 0, "cosine_decay": False, "num_steps": 1}
    return {
        **{"seed": 0, "compile": False, "channels_last": False, "trainer": {"max_steps": 1}},
        "data": {"name": "none", "channels": model["in_channels"], "size": size, "batch_size": 1},
        "model": model,
        "schedule": betas,
        "noise": leaf("diffusion.noises.base.White"),
        "process": leaf("diffusion.gaussian.GaussianDiffusion", **partial),
        "objective": leaf(f"diffusion.objective.{objective}", **partial),
        "time_sampler": leaf("diffusion.time_sampler.Uniform"),
        "weight": leaf("diffusion.losses.weight.uniform", **partial),
        "error": leaf("diffusion.losses.error.mse", **partial),
        "loss": leaf("diffusion.losses.simple.SimpleLoss", **partial, **of_the_loss),
        "variance": leaf("diffusion.variance.FixedSmall"),
        "timestep_spacing": leaf("diffusion.samplers.timestep_spacing.uniform", **partial),
        "sampler": sampler_leaf(ANCESTRAL),
        "clip": leaf("diffusion.denoiser.StaticThresholding", **partial),
        "guidance": leaf("diffusion.denoiser.no_wrapper", **partial, order=["guidance", "clip"]),
        "text": {},
        "cond": leaf("diffusion.conditions.base.NoCondition"),
        "codec": leaf("model.codec.PixelCodec"),
        "ema": averages(),
        "optimizer": leaf("training.optimizer.adam", **partial, **rates),
    }
