"""The scheduler_config.json of diffusers: the noise of the training, how a prediction is used, and the sampler.

A class reads the fields that its constructor has, and diffusers passes over all others in a file: `clip_sample` in that
of a PNDMScheduler, for example.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from ddpm.interop.diffusers_files import Config, read_config, refuse

NAME = "scheduler_config.json"
Solver = tuple[str, Config]
"""A class in `ddpm.diffusion.samplers`, as "ddim.DDIM", and its settings."""
ANCESTRAL: Solver = ("ancestral.Ancestral", {"variance": "${variance}"})


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
    ends_at_1: bool = False  # the last step ends at the least noise of the schedule
    floor: float = 0.0  # alpha_bar at T with rescale_betas_zero_snr
    solver: Solver | str = field(default=ANCESTRAL)  # or the reason for which there is none


NOISE: Config = {
    **{"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    **{"trained_betas": None, "prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 0},
}
RESCALED = {"rescale_betas_zero_snr": False}
CLIPPED = {"clip_sample": True, "clip_sample_range": 1.0}
THRESHOLD = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
LINSPACE = {"timestep_spacing": "linspace"}
SIGMAS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
MULTISTEP = THRESHOLD | LINSPACE | SIGMAS | {
    "solver_order": 2,
    "lower_order_final": True,
    "final_sigmas_type": "zero",
    "use_flow_sigmas": False,
}  # fmt: skip
DPM = {
    **MULTISTEP,
    **{"algorithm_type": "dpmsolver++", "solver_type": "midpoint", "variance_type": None},
    "lambda_min_clipped": -math.inf,
}
LATENT_BETAS = LINSPACE | {"beta_start": 0.00085, "beta_end": 0.012}
DDPM = CLIPPED | THRESHOLD | RESCALED | {"variance_type": "fixed_small"}
DDIM = CLIPPED | THRESHOLD | RESCALED | {"set_alpha_to_one": True}
FIELDS: dict[str, Config] = {
    "DDPM": DDPM,
    "DDPMParallel": DDPM,
    "DDIM": DDIM,
    "DDIMParallel": DDIM,
    "DDIMInverse": CLIPPED | RESCALED | {"set_alpha_to_one": True},
    "PNDM": {"skip_prk_steps": False, "set_alpha_to_one": False},
    "EulerDiscrete": LINSPACE | SIGMAS | RESCALED | {
        "interpolation_type": "linear", "timestep_type": "discrete", "final_sigmas_type": "zero",
    },
    "EulerAncestralDiscrete": LINSPACE | RESCALED,
    "HeunDiscrete": LATENT_BETAS | SIGMAS | CLIPPED | {"clip_sample": False},
    "LMSDiscrete": LINSPACE,
    "KDPM2Discrete": LATENT_BETAS,
    "KDPM2AncestralDiscrete": LATENT_BETAS,
    "DPMSolverSDE": LATENT_BETAS,
    "DPMSolverSinglestep": DPM | {"lower_order_final": False},
    "DPMSolverMultistep": DPM | RESCALED | {"euler_at_final": False, "use_lu_lambdas": False},
    "DEISMultistep": MULTISTEP,
    "UniPCMultistep": MULTISTEP | RESCALED | {
        "predict_x0": True, "solver_type": "bh2", "disable_corrector": [], "solver_p": None,
    },
}  # fmt: skip
"""The fields of each class that matter here, beside those of NOISE, with its defaults."""
EQUAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys((*SIGMAS, "use_lu_lambdas"), (False,)),
    "lambda_min_clipped": (-math.inf,),
    "timestep_type": ("discrete",),
    "interpolation_type": ("linear",),
    "final_sigmas_type": ("zero", "sigma_min"),
    "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"),
    "solver_type": ("midpoint", "bh2"),
    "solver_order": (1, 2, 3),
    "predict_x0": (True,),
    "disable_corrector": ([],),
    "solver_p": (None,),
}
"""The values for which there is a sampler here."""


def scheduler_of(folder: Path) -> Scheduler | None:
    """The scheduler of a folder of a network or a pipeline, or of the pipeline whose network the folder is."""
    places = [folder / "scheduler" / NAME, folder / NAME]
    if (folder.parent / "model_index.json").is_file():
        places.append(folder.parent / "scheduler" / NAME)
    return next((scheduler_from(read_config(path)) for path in places if path.exists()), None)


def scheduler_from(config: Config) -> Scheduler:
    kind = config.get("_class_name", "DDPMScheduler")
    name = kind.removesuffix("Scheduler") if isinstance(kind, str) else ""
    if name not in FIELDS or kind != f"{name}Scheduler":
        refuse(
            "_class_name", kind, "its noise or its network is not that of a DDPMScheduler, or its steps are not known"
        )
    defaults = NOISE | FIELDS[name]
    found = {key: checked(key, value, config.get(key)) for key, value in defaults.items()}
    if found.get("use_flow_sigmas"):
        refuse("use_flow_sigmas", True, "its noise is not that of a DDPMScheduler")
    ours = {each.name for each in fields(Scheduler)}
    kept = {"clip_sample": False} | {key: value for key, value in found.items() if key in ours and value is not None}
    ends_at_1 = not found.get("set_alpha_to_one", True) or found.get("final_sigmas_type") == "sigma_min"
    return Scheduler(
        **kept,
        multistep="solver_order" in found,
        ends_at_1=ends_at_1,
        floor=2.0**-24 if "use_karras_sigmas" in found or name == "EulerAncestralDiscrete" else 0.0,
        solver=solver(name, found, ends_at_1),
    )


def checked(name: str, default: Any, value: Any) -> Any:
    """The value, or the default for null, which has its type."""
    if value is None:
        return default
    if name == "trained_betas":
        if not isinstance(value, list) or not all(type(each) in (int, float) for each in value):
            refuse(name, value, "a list of numbers is needed")
    elif default is not None and type(value) is not type(default) and (type(value), type(default)) != (int, float):
        refuse(name, value, f"{KINDS[type(default)]} is needed")
    return value


def solver(name: str, found: Config, ends_at_1: bool) -> Solver | str:
    """Our sampler with the steps of theirs, or the reason for which there is none."""
    for key, values in EQUAL.items():
        if key in found and found[key] not in values:
            return f"{name}Scheduler with {key} = {found[key]!r} has no equal here"
    match name:
        case "DDPM" | "DDPMParallel":
            return ANCESTRAL
        case "DDIM" | "DDIMParallel":
            return "ddim.DDIM", {"eta": 0.0, "clipped_eps": False}
        case "EulerDiscrete":
            return "ddim.DDIM", {"eta": 0.0}
        case "EulerAncestralDiscrete":
            return "ddim.DDIM", {"eta": 1.0}
        case "PNDM":
            return ("pndm.PLMS", {}) if found["skip_prk_steps"] else ("pndm.PNDM", {"euler_above": math.inf})
        case "HeunDiscrete":
            churn = {"churn": 0.0, "churn_low": 0.0, "churn_high": math.inf, "noise_scale": 1.0}
            return "edm.Heun", {**churn, "euler_above": math.inf}
        case "UniPCMultistep":
            lower = {"lower_order_final": found["lower_order_final"]}
            return "unipc.UniPC", {"predictor_order": found["solver_order"], **lower}
        case "DPMSolverMultistep":
            return _dpm_solver(found, ends_at_1)
    return f"{name}Scheduler has no equal here"


def _dpm_solver(found: Config, ends_at_1: bool) -> Solver | str:
    order, stochastic = found["solver_order"], found["algorithm_type"] == "sde-dpmsolver++"
    if order == 1:
        return "ddim.DDIM", {"eta": float(stochastic)}
    lower = next((field for field in ("lower_order_final", "euler_at_final") if found[field]), None)
    if ends_at_1 and lower:
        return f"DPMSolverMultistepScheduler with final_sigmas_type = 'sigma_min' and {lower} = True has no equal here"
    if order == 2:
        return ("dpm_solver.SDEDPMSolver" if stochastic else "dpm_solver.DPMSolver"), {}
    if stochastic:
        return "DPMSolverMultistepScheduler with algorithm_type = 'sde-dpmsolver++' of order 3 has no equal here"
    settings = {"lower_order_final": found["lower_order_final"], "lower_order_below": 15}
    return "dpm_solver.PublishedDPMSolver3M", settings


def no_equal(reason: str, **_: Any) -> NoReturn:
    """In the place of a sampler that does not exist here; sampler=NAME replaces it."""
    raise ValueError(
        f"{reason}: choose sampler=NAME, for example dpm_solver, unipc or sde_dpm_solver "
        "(timestep_spacing=rho has the sigmas of Karras et al., rounded to whole times)"
    )


KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", list: "a list"}
