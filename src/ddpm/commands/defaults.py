"""Defaults that follow from what was typed: options before Hydra composes, and values that would not fit afterwards."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, open_dict

from ddpm.base import check
from ddpm.base.program import CONF
from ddpm.checkpoint.groups import group_names
from ddpm.config.compose import compose
from ddpm.config.wiring import is_chosen
from ddpm.runs import launch
from ddpm.runs.console import say

EXPERIMENTS = {
    "images": ("folder", "zip", "npz", "parquet", "webdataset", "nifti", "cifar10"),
    "swirl": ("swirl", "checkerboard", "gaussian", "mixture", "grid25"),
}
"""Experiment -> the data sets that get it if none is typed. The default experiment is for digits."""


GAUSSIAN = "ddpm.diffusion.gaussian.GaussianDiffusion"
EPS = "ddpm.diffusion.objective.Eps"


def following_options(words: list[str]) -> list[str]:
    """The arguments of train.py with the options that follow from them, unless they are typed.

    These are the experiment for a data set, steps that are chosen for max_minutes, and no guidance of a condition that
    is typed, except for classes.
    """
    keys = [word.partition("=")[0] for word in words]
    added = []
    for experiment, names in EXPERIMENTS.items():
        values = next((word.partition("=")[2].split(",") for word in words if word.startswith("data=")), [])
        if "experiment" not in keys and set(values) & set(names):
            if not set(values) <= set(names):
                raise ValueError(f"data={','.join(values)} needs several experiments; choose one: experiment=NAME")
            added.append(f"experiment={experiment}")
    timed = [word for word in words if re.match(r"(limits\.)?max_minutes=", word)]
    if timed and "trainer.max_steps" not in keys:
        added.append("trainer.max_steps=null")
    elif timed and "trainer.max_steps=null" not in words:
        raise ValueError(f"{timed[0]} chooses trainer.max_steps: leave one of them out")
    words = [re.sub("^max_minutes=", "limits.max_minutes=", word) for word in words]
    if "guidance" not in keys and any(word.startswith("cond=") and word != "cond=class" for word in words):
        added.append("guidance=none")
    return [*added, *words]


def typed_fields(overrides: list[str]) -> set[str]:
    return {word.partition("=")[0].lstrip("+") for word in overrides}


def refuse_other_kinds(config: DictConfig, name: str, overrides: list[str]) -> None:
    """Raise ValueError for a text in place of a number, or of true or false, before torch is imported."""
    groups = {*group_names(stored=True)} - {"trainer"}  # Lightning's fields have words for some numbers
    values = {key: OmegaConf.select(config, key) for key in typed_fields(overrides) if key.partition(".")[0] in groups}
    texts = {key: value for key, value in values.items() if isinstance(value, str)}
    options = [word for word in overrides if (CONF / word.replace("=", "/")).with_suffix(".yaml").exists()]
    usual = compose(CONF, name, options) if texts else {}
    for key, value in texts.items():
        default = OmegaConf.select(usual, key)
        if isinstance(default, bool | int | float):
            check.fail(key, value, "true or false" if isinstance(default, bool) else "a number")


def explain_default(config: DictConfig, overrides: list[str], message: str) -> str:
    """The error message; if the value that it refuses was not typed, with the remark that it is a default."""
    found = re.match(r"([\w.]+) must be .*, got ", message)
    known = found and OmegaConf.select(config, found[1], throw_on_resolution_failure=False) is not None
    if not known or found[1] in typed_fields(overrides):
        return message
    return f"{message}; this value is a default that does not fit the other settings: set {found[1]} too"


def adapt_defaults(config: DictConfig) -> None:
    """Change values that were not typed and do not fit what was typed, and print the changes."""
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    for change in changes_of_defaults(config, list(overrides)):
        if launch.is_first_process():
            say(change)


def misfits(config: DictConfig) -> Iterator[tuple[str, str, str]]:
    """Groups whose option cannot be used with the other groups, an option that can, and the reason."""
    if "scale" in config.guidance:
        if config.process._target_ != GAUSSIAN:
            yield "guidance", "none", "guidance needs process=gaussian"
        elif not config.cond.get("dropout"):
            yield "guidance", "none", "the condition is not dropped in training"
    if "gamma" in config.weight and config.process._target_ != GAUSSIAN:
        yield "weight", "uniform", "this weight needs process=gaussian"
    if ".vlb." in config.loss._target_ and config.time_sampler._target_.endswith("LogitNormal"):
        yield "time_sampler", "stratified", "a bound needs uniform times"


def misfit_values(config: DictConfig) -> Iterator[tuple[str, Any, str]]:
    """Fields whose value does not fit the other fields, a value that does, and the reason."""
    steps, most = config.sampler.get("steps"), config.schedule.get("num_timesteps")
    if isinstance(steps, int) and isinstance(most, int) and steps > most > 0:
        yield "sampler.steps", most, f"schedule.num_timesteps={most}"
    if config.weight.get("offset") and config.objective._target_ == EPS:
        yield "weight.offset", 0.0, "with objective=eps the weight would be unbounded where only noise is left"


def changes_of_defaults(config: DictConfig, overrides: list[str]) -> list[str]:
    """Make the changes. Returns them in words."""
    typed, changes = typed_fields(overrides), []
    for word in overrides:
        group, _, option = word.partition("=")
        file = CONF / group / f"{option}.yaml"
        if file.exists() and is_chosen(config, group):
            changes += left_out_and_kept(config, group, OmegaConf.to_container(OmegaConf.load(file)), word, typed)
    for key, value, reason in misfit_values(config):
        if key not in typed:
            changes.append(f"{key}={value} instead of {OmegaConf.select(config, key)}, because {reason}")
            OmegaConf.update(config, key, value)
    for group, option, reason in misfits(config):
        if group not in {key.partition(".")[0] for key in typed}:
            OmegaConf.update(config, group, OmegaConf.load(CONF / group / f"{option}.yaml"), merge=False)
            changes.append(f"{group}={option}, because {reason}")
    return changes


def left_out_and_kept(config: DictConfig, group: str, own: dict[str, Any], word: str, typed: set[str]) -> list[str]:
    """Leave out the experiment's fields of another option than `word`, which has the fields `own`. Returns in words
    which were left out, and which of its values the option has."""
    changes = []
    given = {".".join(key.split(".")[:2]) for key in typed}  # also for data.source.root
    fields = {f: value for f, value in OmegaConf.to_container(config[group]).items() if f"{group}.{f}" not in given}
    parameters = inspect.signature(get_object(config[group]._target_)).parameters
    if all(each.kind != inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        foreign = fields.keys() - {*parameters, *own, "_target_", "_partial_"}
        with open_dict(config):
            for field in foreign:
                del config[group][field]
        if foreign:
            changes.append(f"{word}: without the experiment's {', '.join(sorted(foreign))}")
    kept = [f"{field}={fields[field]}" for field in own if field in fields and fields[field] != own[field]]
    if kept:
        changes.append(f"{word}: with the experiment's {', '.join(kept)}")
    return changes
