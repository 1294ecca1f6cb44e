"""A model of another program as a configuration of this project, so that the commands take it for a checkpoint."""

from typing import Any

from ddpm.interop.diffusers import DiffusersModel, Scheduler

Config = dict[str, Any]
OBJECTIVES = {"epsilon": "Eps", "sample": "X0", "v_prediction": "V"}


def schedule(scheduler: Scheduler) -> Config:
    """The leaf of conf/schedule that makes the same betas."""
    timesteps = scheduler.num_train_timesteps
    if scheduler.beta_schedule == "squaredcos_cap_v2":
        target = "ddpm.diffusion.schedules.cosine.cosine"
        return {"_target_": target, "num_timesteps": timesteps, "offset": 0.008, "max_beta": 0.999}
    names = {"linear": "linear", "scaled_linear": "quadratic"}
    if scheduler.beta_schedule not in names:
        known = ", ".join([*names, "squaredcos_cap_v2"])
        raise ValueError(f"beta_schedule must be one of {known}, got {scheduler.beta_schedule!r}")
    name = names[scheduler.beta_schedule]
    return {
        "_target_": f"ddpm.diffusion.schedules.{name}.{name}",
        "num_timesteps": timesteps,
        "beta_start": scheduler.beta_start,
        "beta_end": scheduler.beta_end,
        "rescale": False,
    }


def averages(*decays: float) -> Config:
    """The leaf that makes averages of these decays, whatever leaf they came from."""
    return {"_target_": "ddpm.model.ema.WeightAverages", "_partial_": True, "decay": list(decays)}


def diffusers_configuration(pretrained: DiffusersModel) -> Config:
    """What build.module needs for sampling. The sampler is the paper's: all steps, with the small variance."""
    scheduler = pretrained.scheduler or Scheduler()
    if scheduler.prediction_type not in OBJECTIVES:
        raise ValueError(f"prediction_type must be one of {', '.join(OBJECTIVES)}, got {scheduler.prediction_type!r}")
    model = {"_target_": "ddpm.networks.unet.UNet", **pretrained.network.settings}
    return all_groups(model, pretrained.sample_size, schedule(scheduler), OBJECTIVES[scheduler.prediction_type])


def all_groups(model: Config, size: list[int] | None, betas: Config, objective: str) -> Config:
    """All groups of a configuration, those that are not given in their plainest form.

    model, betas: leaves of a network and of a schedule. size: height and width. objective: the name of its class.
    """
    partial = {"_partial_": True}
    return {
        "seed": 0,
        "compile": False,
        "channels_last": False,
        "data": {"name": "none", "channels": model["in_channels"], "size": size, "batch_size": 1},
        "trainer": {"max_steps": 1},
        "model": model,
        "schedule": betas,
        "noise": {"_target_": "ddpm.diffusion.noise.White"},
        "process": {"_target_": "ddpm.diffusion.gaussian.GaussianDiffusion", **partial},
        "objective": {"_target_": f"ddpm.diffusion.objective.{objective}", **partial},
        "time_sampler": {"_target_": "ddpm.diffusion.time_sampler.Uniform"},
        "weight": {"_target_": "ddpm.diffusion.weight.uniform", **partial},
        "error": {"_target_": "ddpm.diffusion.losses.error.mse", **partial},
        "loss": {
            "_target_": "ddpm.diffusion.losses.simple.SimpleLoss",
            **partial,
            **{name: f"${{{name}}}" for name in ("time_sampler", "weight", "error")},
        },
        "variance": {"_target_": "ddpm.diffusion.variance.FixedSmall"},
        "timestep_spacing": {"_target_": "ddpm.diffusion.timestep_spacing.uniform", **partial},
        "sampler": {
            "_target_": "ddpm.diffusion.samplers.ancestral.Ancestral",
            **partial,
            "steps": None,
            "timestep_spacing": "${timestep_spacing}",
            "variance": "${variance}",
        },
        "clip": {"_target_": "ddpm.diffusion.denoiser.StaticThresholding", **partial},
        "guidance": {"_target_": "ddpm.diffusion.denoiser.no_wrapper", **partial, "order": ["guidance", "clip"]},
        "cond": {"_target_": "ddpm.diffusion.condition.NoCondition"},
        "codec": {"_target_": "ddpm.model.codec.PixelCodec"},
        "ema": averages(),
        "optimizer": {
            "_target_": "ddpm.training.optimizer.adam",
            **partial,
            **{"lr": 2e-4, "warmup_steps": 0, "cosine_decay": False, "num_steps": 1},
        },
    }
