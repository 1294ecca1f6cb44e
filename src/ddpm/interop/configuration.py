"""Configurations for models of other programs, so that commands can use them like checkpoints."""

from typing import Any

from ddpm.base import check
from ddpm.interop.diffusers import DiffusersModel, Scheduler

Config = dict[str, Any]
OBJECTIVES = {"epsilon": "Eps", "sample": "X0", "v_prediction": "V"}


def leaf(target: str, **fields: Any) -> Config:
    return {"_target_": f"ddpm.{target}", **fields}


def schedule(scheduler: Scheduler) -> Config:
    """The configuration of a schedule with the same betas. Raises ValueError if there is none."""
    timesteps = {"num_timesteps": scheduler.num_train_timesteps}
    if scheduler.beta_schedule == "squaredcos_cap_v2":
        return leaf("diffusion.schedules.curves.cosine", **timesteps, offset=0.008, max_beta=0.999)
    names = {"linear": "linear", "scaled_linear": "quadratic"}
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
    """The configuration for sampling, with the ancestral sampler, all steps and the small variance."""
    scheduler = pretrained.scheduler or Scheduler()
    model = leaf("networks.unet.UNet", **pretrained.network.settings)
    return all_groups(model, pretrained.sample_size, schedule(scheduler), objective_of(scheduler))


def objective_of(scheduler: Scheduler) -> str:
    """The name of the class."""
    return OBJECTIVES[check.one_of("prediction_type", scheduler.prediction_type, OBJECTIVES)]


def all_groups(model: Config, size: list[int] | None, betas: Config, objective: str) -> Config:
    """A complete configuration, with the simplest option for all groups that are not given.

    model, betas: configurations of network and schedule. size: height and width. objective: name of its class.
    """
    partial = {"_partial_": True}
    of_the_loss = {name: f"${{{name}}}" for name in ("time_sampler", "weight", "error")}
    of_the_sampler = {"steps": None, "timestep_spacing": "${timestep_spacing}", "variance": "${variance}"}
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
        "sampler": leaf("diffusion.samplers.ancestral.Ancestral", **partial, **of_the_sampler),
        "clip": leaf("diffusion.denoiser.StaticThresholding", **partial),
        "guidance": leaf("diffusion.denoiser.no_wrapper", **partial, order=["guidance", "clip"]),
        "text": {},
        "cond": leaf("diffusion.conditions.base.NoCondition"),
        "codec": leaf("model.codec.PixelCodec"),
        "ema": averages(),
        "optimizer": leaf("training.optimizer.adam", **partial, **rates),
    }
