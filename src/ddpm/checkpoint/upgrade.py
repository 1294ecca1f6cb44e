"""Tables of former names, and functions that upgrade stored data to the current names.

The same tables upgrade configurations, records of images, results and exports, and recognize former names in
command-line arguments. A new rename is one row here.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

GROUPS = {"timesteps": "time_sampler", "distance": "error", "grid": "timestep_spacing", "denoiser": "clip"}
"""Groups of the configuration: former name -> current name."""

OPTIONS = {
    "clip": {"clipped": "static", "thresholded": "dynamic", "plain": "none"},
    "error": {"squared": "mse", "absolute": "mae"},
    "model": {"prompted_tiny": "caption_unet_tiny"},
}
"""Options by current group: former name -> current name."""

FIELDS = {
    "loss": {"timesteps": "time_sampler", "distance": "error"},
    "model": {"low_res": "concat_channels"},
    "process": {"same_noise_back": "reverse_noise", "asymmetry": "symmetry_noise"},
    "sampler": {"grid": "timestep_spacing"},
}
"""Fields by current group: former name -> current name."""

MOVED = {"trainer.timeout_minutes": "limits.timeout_minutes"}
"""Fields that moved to another group."""

VALUES = {("process", "reverse_noise"): {True: "same", False: "white"}, ("guidance", "order"): {"denoiser": "clip"}}
"""Values of fields and entries of lists, by current group and field: former value -> current value."""

SUBJECT = {"told_by": "conditions_from"}
"""Other names in a record of images or the subject of a result: former name -> current name."""

DIFFUSION_MODULES = {
    "conditions.base": ["condition"],
    "conditions.low_resolution": ["low_resolution"],
    "degradations.fade": ["degradations.decolor"],
    "exact.oracle": ["oracle"],
    "guidance.difference": ["guidance.classifier_free", "guidance.autoguidance"],
    "losses.vlb": ["losses.hybrid"],
    "losses.weight": ["weight"],
    "noises.base": ["noise", "noises.offset"],
    "samplers.cold": ["samplers.naive"],
    "samplers.dpm_solver": ["samplers.dpm_solver_3m", "samplers.sde_dpm_solver"],
    "samplers.edm": ["samplers.euler", "samplers.heun"],
    "samplers.timestep_spacing": ["timestep_spacing"],
    "schedules.adjusted": ["schedules.shifted", "schedules.zero_terminal_snr"],
    "schedules.base": ["steps"],
    "schedules.betas": [
        *("schedules.constant", "schedules.linear", "schedules.quadratic"),
        *("schedules.warmup", "schedules.sigmoid_beta", "schedules.dpm2015"),
    ],
    "schedules.curves": ["schedules.cosine", "schedules.jsd", "schedules.sigmoid", "schedules.vp"],
}
"""Modules of ddpm.diffusion, and the earlier modules whose parts they contain."""

TARGETS = {
    "ddpm.diffusion.caption.": "ddpm.diffusion.conditions.attributes.",
    "ddpm.diffusion.conditions.caption.": "ddpm.diffusion.conditions.attributes.",
    "ddpm.diffusion.conditions.attributes.Caption": "ddpm.diffusion.conditions.attributes.AttributeWords",
    "ddpm.diffusion.conditions.attributes.stroke_width": "ddpm.base.strokes.stroke_width",
    "ddpm.diffusion.conditions.attributes.slant": "ddpm.base.strokes.slant",
    "ddpm.models.": "ddpm.networks.",
    "ddpm.codec.": "ddpm.model.codec.",
    "ddpm.training.averages.": "ddpm.model.ema.",
    "ddpm.networks.prompted.Prompted": "ddpm.networks.caption_unet.CaptionUNet",
    "ddpm.diffusion.denoiser.Clipped": "ddpm.diffusion.denoiser.StaticThresholding",
    "ddpm.diffusion.denoiser.DynamicallyThresholded": "ddpm.diffusion.denoiser.DynamicThresholding",
    "ddpm.diffusion.denoiser.plain": "ddpm.diffusion.denoiser.no_wrapper",
    "ddpm.diffusion.grid.": "ddpm.diffusion.samplers.timestep_spacing.",
    "ddpm.diffusion.timesteps.": "ddpm.diffusion.time_sampler.",
    "ddpm.diffusion.losses.distance.squared": "ddpm.diffusion.losses.error.mse",
    "ddpm.diffusion.losses.distance.absolute": "ddpm.diffusion.losses.error.mae",
    "ddpm.diffusion.losses.distance.": "ddpm.diffusion.losses.error.",
    **{f"ddpm.diffusion.{old}.": f"ddpm.diffusion.{new}." for new, olds in DIFFUSION_MODULES.items() for old in olds},
}
"""Modules (with a dot at the end) and parts: former name -> current name. Applied in this order, because a part may
have moved before it was renamed."""

NEW_FIELDS: dict[str, dict[str, Any]] = {
    "ddpm.data.datamodule.ImageDataModule": dict.fromkeys(("latents", "white", "labels", "label_images", "num_labels")),
    "ddpm.data.sources.zip.Zip": {"layout": None, "within": ""},
    "ddpm.data.sources.parquet.Parquet": {"caption_column": None},
    "ddpm.diffusion.degradations.blur.Blur": {"rounding": "nearest"},
    "ddpm.diffusion.degradations.mask.Mask": {"initial": 1, "shift": 0, "levels": None, "rounding": "nearest"},
    "ddpm.diffusion.degradations.pixelate.Pixelate": {"cumulative": False},
    "ddpm.diffusion.gaussian.GaussianDiffusion": {"reverse_noise": "same"},
    "ddpm.diffusion.guidance.difference.ClassifierFree": {"rescale_of": "x0"},
    "ddpm.diffusion.time_sampler.Uniform": {"largest": None},
    "ddpm.diffusion.losses.ddgan.DDGANLoss": {"reconstruction_weight": 0.0},
    "ddpm.diffusion.losses.weight.MinSNR": {"offset": 0.0},
    "ddpm.diffusion.samplers.ancestral.Ancestral": {"latent": "fresh"},
    "ddpm.diffusion.samplers.ddim.DDIM": {"clipped_eps": True},
    "ddpm.diffusion.samplers.dpm_solver.DPMSolver3M": {"largest_growth": math.inf, "largest_step": math.inf},
    "ddpm.diffusion.samplers.dpm_solver.PublishedDPMSolver3M": {"lower_order_below": math.inf},
    "ddpm.diffusion.samplers.edm.Heun": {"euler_above": 0.0},
    "ddpm.diffusion.samplers.pndm.PNDM": {"euler_above": 0.0},
    "ddpm.diffusion.samplers.unipc.UniPC": {"lower_order_final": False},
    "ddpm.training.optimizer.adam": {"min_lr": 0.0},
    "ddpm.training.optimizer.adamw": {"min_lr": 0.0},
}
"""Fields added to a part later, with the value that earlier configurations imply."""

REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def upgrade(stored: Mapping[str, Any], new_groups: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Upgrade a configuration, an identity of images, or the subject of a result to the current names.

    Values are plain containers. new_groups: settings of groups that an older configuration lacks.
    """
    named = {(GROUPS | SUBJECT).get(name, name): value for name, value in stored.items()}
    upgraded = {
        name: upgrade_text(value) if isinstance(value, str) and name in TEXTS else upgrade_group(name, value)
        for name, value in {**(new_groups or {}), **named}.items()
    }
    for old, new in MOVED.items():
        (group, field), (new_group, new_field) = old.split("."), new.split(".")
        if isinstance(upgraded.get(group), dict) and field in upgraded[group]:
            value = upgraded[group].pop(field)
            upgraded[new_group] = {**upgraded.get(new_group, {}), new_field: value}
    return upgraded


def upgrade_group(group: str, value: Any) -> Any:
    """Upgrade the settings of a group. The name of a data set is plain text and is not changed."""
    if group == "data" and isinstance(value, dict) and "name" in value:
        return {**upgrade_parts(value), "name": value["name"]}
    if isinstance(value, dict):
        fields = FIELDS.get(group, {})
        value = {fields.get(field, field): each for field, each in value.items()}
        value = {field: upgrade_value(group, field, each) for field, each in value.items()}
    return upgrade_parts(value)


def upgrade_value(group: str, field: str, value: Any) -> Any:
    table = VALUES.get((group, field), {})
    if isinstance(value, list):
        return [upgrade_value(group, field, each) for each in value]
    return table.get(value, value) if isinstance(value, str | bool) else value


def upgrade_parts(value: Any) -> Any:
    """Upgrade every `_target_` and every reference in plain containers, and add new fields."""
    if isinstance(value, list):
        return [upgrade_parts(each) for each in value]
    if isinstance(value, str):
        return REFERENCE.sub(lambda found: f"${{{upgrade_key(found[1])}}}", value)
    if not isinstance(value, dict):
        return value
    value = {field: upgrade_parts(each) for field, each in value.items()}
    if isinstance(value.get("_target_"), str):
        value["_target_"] = upgrade_target(value["_target_"])
        value = {**NEW_FIELDS.get(value["_target_"], {}), **value}
    return value


def upgrade_target(target: str) -> str:
    for old, new in TARGETS.items():
        if target == old or (old.endswith(".") and target.startswith(old)):
            target = new + target.removeprefix(old)
    return target


def upgrade_key(key: str) -> str:
    """Upgrade a dotted key: group, group.field or longer."""
    group, *fields = key.split(".")
    group = GROUPS.get(group, group)
    if fields:
        fields[0] = FIELDS.get(group, {}).get(fields[0], fields[0])
    new = ".".join([group, *fields])
    return MOVED.get(new, new)


def upgrade_text(text: str) -> str:
    """Upgrade the description of a part, such as "Ancestral(grid=uniform, variance=FixedSmall())"."""
    for old, new in DESCRIPTIONS.items():
        text = re.sub(old, new, text)
    return text


def upgrade_weights(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Upgrade the state dict of a `DiffusionModule`."""
    return {re.sub(r"^timesteps\.", "time_sampler.", name): value for name, value in weights.items()}


def upgrade_word(word: str) -> str:
    """Upgrade a command-line argument; in a sweep, each of its values."""
    prefix, key, package, equals, text = WORD.fullmatch(word).groups()
    new = upgrade_key(key)
    if new == "resume.allow":
        text = re.sub(r"[\w.]+", lambda found: upgrade_key(found[0]), text)
    group, _, field = new.partition(".")
    if equals and not field:
        options = OPTIONS.get(group, {})
        text = ",".join(options.get(each, each) for each in text.split(","))
    elif equals:
        values = {YAML.get(old, old): value for old, value in VALUES.get((group, field), {}).items()}
        text = re.sub(r"\w+", lambda found: values.get(found[0], found[0]), text) if values else text
    return f"{prefix}{new}{package}{equals}{text}"


def earlier_word(word: str) -> tuple[str, str] | None:
    """The former and the current name in an argument, keys alone if the values are equal; None if it is current."""
    new = upgrade_word(word)
    if new == word:
        return None
    (old_key, _, old_value), (new_key, _, new_value) = (each.lstrip("+~").partition("=") for each in (word, new))
    return (old_key, new_key) if old_value == new_value else (word.lstrip("+~"), new.lstrip("+~"))


YAML = {True: "true", False: "false"}
WORD = re.compile(r"([+~]*)([^=@]*)((?:@[^=]*)?)(=?)(.*)", re.DOTALL)

TEXTS = {*FIELDS, *GROUPS.values(), "schedule", "noise", "objective", "variance", "guidance", "codec", "cond", "model"}
"""Groups that a record or a result can describe by a text."""

CLASSES = {old.rpartition(".")[2]: new.rpartition(".")[2] for old, new in TARGETS.items() if not old.endswith(".")}
DESCRIPTIONS = {
    r"\bsame_noise_back=(True|False)\b": lambda found: f"reverse_noise={'same' if found[1] == 'True' else 'white'}",
    r"'denoiser'": "'clip'",
    r"(?<= steps, )grid=(?=\w+\(grid=)": "sampler=",
    **{rf"\b{old}=": f"{new}=" for fields in FIELDS.values() for old, new in fields.items()},
    **{rf"\b{old}\(": f"{new}(" for old, new in CLASSES.items()},
}
