"""Refuse overrides that no selected part uses."""

import re
from collections.abc import Set

from hydra.utils import get_object
from omegaconf import DictConfig


def refuse_what_has_no_effect(config: DictConfig, overrides: list[str]) -> None:
    """Raise ValueError for an override that no selected part uses."""
    if any(typed.startswith("resume.allow=") for typed in overrides) and config.resume.path is None:
        raise ValueError("resume.allow has no effect on a new run; choose a run to continue, for example resume=auto")
    readers = {
        "variance": ("sampler", "loss"),
        "timestep_spacing": ("sampler",),
        "weight": ("loss",),
        "error": ("loss",),
    }
    for typed in overrides:
        group, _, value = typed.partition("=")
        if value.startswith("[") and isinstance(config.get(group), DictConfig) and "_target_" in config[group]:
            raise ValueError(f"{typed}: {group} takes one option; {group}=A,B with -m runs a job with each")
    for group, parts in readers.items():
        typed = next((each for each in overrides if each.startswith(f"{group}=")), None)
        chosen = {part: config[part] for part in parts if config.get(part) and "_target_" in config[part]}
        if typed and chosen and not any(group in part for part in chosen.values()):
            names = " and ".join(f"the {part} {leaf['_target_'].rpartition('.')[2]}" for part, leaf in chosen.items())
            raise ValueError(f"{typed} has no effect, because {names} has no {group}; leave it out")
    words = {re.match(r"\+*(\w*)", word)[1]: word for word in overrides if not word.endswith("=none")}
    for group, why in (idle_groups(config, words.keys()) if "loss" in config else {}).items():
        if group in words:
            raise ValueError(f"{words[group]} has no effect, because {why}; leave it out")


def idle_groups(config: DictConfig, typed: Set[str]) -> dict[str, str]:
    """The groups among those typed that a training does not use, and why."""
    idle = {} if "_target_" in config.adversary else {"adversary_optimizer": "there is no adversary"}
    if not config.get("metric"):
        idle |= dict.fromkeys(("evaluate", "features", "features_batch_size"), "no metric is chosen, as metric=fid")
    of_samples = {"objective", "sampler", "clip", "guidance", "timestep_spacing"}
    if typed & of_samples and (what := getattr(get_object(config.model._target_), "no_samples", None)):
        idle |= dict.fromkeys(of_samples, f"{what.partition(',')[0]} generates no images")
    return idle
