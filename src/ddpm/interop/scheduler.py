"""The scheduler_config.json of diffusers: the noise of the training, and how its samplers treat a prediction."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from ddpm.interop.diffusers_files import Config, read_config, refuse


@dataclass(frozen=True)
class Scheduler:
    """Names and defaults of diffusers' DDPMScheduler. What the names mean in this project is in `configuration`."""

    num_train_timesteps: int = 1000
    beta_schedule: str = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    prediction_type: str = "epsilon"
    trained_betas: Sequence[float] | None = None
    rescale_betas_zero_snr: bool = False
    variance_type: str = "fixed_small"
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0
    timestep_spacing: str = "leading"
    steps_offset: int = 0
    multistep: bool = False  # what a class of diffusers implies: its grid has one time more, without the last


CLIPPING = {f"{name}Scheduler" for name in ("DDPM", "DDPMParallel", "DDIM", "DDIMParallel", "DDIMInverse")}
SOLVERS = CLIPPING | {
    *("PNDMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"),
    *("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "UniPCMultistepScheduler"),
    *("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DPMSolverSDEScheduler", "DEISMultistepScheduler"),
}
"""Schedulers with the noise of a DDPMScheduler. Their other fields describe a solver. This project has its own solvers,
and the user chooses one by sampler=. CLIPPING: those with clip_sample=True by default; others do not clip."""
LEADING = CLIPPING | {"PNDMScheduler"}
"""Those with timestep_spacing="leading" by default; for the others it is "linspace"."""
MULTISTEP = {
    *("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"),
    "DEISMultistepScheduler",
}
LATENT_BETAS = {
    *("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler"),
}
"""Those with the betas of latent diffusion by default."""


def scheduler_of(folder: Path) -> Scheduler | None:
    """The scheduler of a folder of a network or a pipeline."""
    places = [folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"]
    return next((scheduler_from(read_config(path)) for path in places if path.exists()), None)


def scheduler_from(config: Config) -> Scheduler:
    name = config.get("_class_name", "DDPMScheduler")
    if not isinstance(name, str) or name not in SOLVERS:
        refuse("_class_name", name, "its noise is not that of a DDPMScheduler")
    found: Config = {} if name in CLIPPING else {"clip_sample": False, "multistep": name in MULTISTEP}
    if name not in LEADING:
        found["timestep_spacing"] = "linspace"
    if name in LATENT_BETAS:
        found |= {"beta_start": 0.00085, "beta_end": 0.012}
    for field in fields(Scheduler)[:-1]:
        value = config.get(field.name)
        if value is None:
            continue
        if field.default is None:
            if not isinstance(value, list) or not all(type(each) in (int, float) for each in value):
                refuse(field.name, value, "a list of numbers is needed")
        elif type(value) is not type(field.default) and (type(value), type(field.default)) != (int, float):
            refuse(field.name, value, f"{KINDS[type(field.default)]} is needed")
        found[field.name] = value
    return Scheduler(**found)


KINDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
