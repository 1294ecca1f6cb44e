"""Refuse overrides that no selected part uses."""

import re
from collections.abc import Set
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from ddpm.checkpoint.groups import group_names

OF_EVERY_COMMAND = (
    *("accelerator", "devices", "num_nodes", "strategy", "precision", "deterministic", "benchmark", "profiler"),
    *("inference_mode", "plugins"),
)
"""Settings of the trainer that sample.py and evaluate.py read too."""


IDLE_WITH: dict[str, tuple[Any, tuple[str, ...]]] = {
    "keep.best": (None, ("keep.mode",)),
    "ema.decay": ([], ("ema.warmup", "ema.start_step")),
    "data.label_images": (None, ("data.num_labels",)),
    "optimizer.cosine_decay": (False, ("optimizer.min_lr",)),
    "adversary_optimizer.cosine_decay": (False, ("adversary_optimizer.min_lr",)),
    "adversary._target_": (None, ("adversary_optimizer", "loss.adversary_weight", "loss.adversary_start")),
    "perceptual._target_": (None, ("loss.perceptual_weight",)),
    "process.growth": ("constant", ("process.rate",)),
    "task.num_resamples": (1, ("task.jump_length",)),
    "process.to_mean": (False, ("process.symmetry_noise",)),
}
"""A field, the value with which others have no effect, and those. Strengths of 0, points of a sweep, are not listed."""


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
            verb = "have" if len(chosen) > 1 else "has"
            raise ValueError(f"{typed} has no effect, because {names} {verb} no {group}; leave it out")
    words = {word.lstrip("+").partition("=")[0]: word for word in overrides if not word.endswith("=none")}
    of_command = {"loss": idle_in_training, "metric": idle_in_evaluation, "task": idle_in_sampling}
    idle = next((ask(config, words.keys()) for group, ask in of_command.items() if group in config), {})
    for field, (off, others) in IDLE_WITH.items():
        group, _, name = field.partition(".")
        known = "_target_" in (config.get(group) or {}) or group == "keep"  # else that of a stored run
        if (known or name == "_target_") and group in config and config[group].get(name) == off:
            value = "null" if off is None else str(off).lower()
            idle |= dict.fromkeys(others, f"{group} is none" if name == "_target_" else f"{field} is {value}")
    for key, word in words.items():
        if why := idle.get(key, idle.get(key.partition(".")[0])):
            raise ValueError(f"{word} has no effect, because {why}; leave it out")


def idle_in(name: str, part: type) -> dict[str, str]:
    """What a part says in `idle`: groups and fields that have no effect with it."""
    return dict.fromkeys(getattr(part, "idle", ()), f"{name} does not read it")


def idle_in_training(config: DictConfig, typed: Set[str]) -> dict[str, str]:
    """The groups and fields among those typed that a training does not use, and why."""
    idle = {}
    if not config.get("metric"):
        idle |= dict.fromkeys(("evaluate", "features", "features_batch_size"), "no metric is chosen, as metric=fid")
    of_samples = {"objective", "sampler", "clip", "guidance", "timestep_spacing", "variance"}
    groups = {key.partition(".")[0] for key in typed}
    for group in ("loss", "process") if groups & {*group_names(builds=True)} else ():
        idle |= idle_in(f"the {group} {config[group]._target_.rpartition('.')[2]}", get_object(config[group]._target_))
    if "schedule" in idle:
        idle["schedule.num_timesteps"] = ""  # 1 for a loss that does not read the schedule
    if groups & of_samples and (what := getattr(get_object(config.model._target_), "no_samples", None)):
        idle |= dict.fromkeys(of_samples, f"{what.partition(',')[0]} generates no images")
    read = f"{config.callbacks} {config.evaluate if config.get('metric') else ''}"
    shared = {"sample_every_n_steps", "checkpoint_every_n_steps", "keep"} - set(re.findall(r"\$\{(\w+)", read))
    idle |= dict.fromkeys(shared, "no callback reads it")
    return idle


def idle_in_sampling(config: DictConfig, typed: Set[str]) -> dict[str, str]:
    """Likewise, of sample.py."""
    idle = {f"data.{field}": "a task reads single images" for field in ("batch_size", "eval_batch_size")}
    if config.task is not None:
        idle |= getattr(get_object(config.task._target_), "idle", {})
    return idle | idle_without_training(config, typed)


def idle_in_evaluation(config: DictConfig, typed: Set[str]) -> dict[str, str]:
    """Likewise, of evaluate.py."""
    metrics = {name: leaf for name, leaf in (config.get("metric") or {}).items() if leaf is not None}
    of_models = [name for name, leaf in metrics.items() if "ddpm.evaluation.model_metrics." in str(leaf)]
    idle = {}
    if of_models and of_models == [*metrics]:
        read = re.findall(r"\$\{(\w+)", str(OmegaConf.to_container(config.metric, resolve=False)))
        names = {"features", "features_batch_size", "keep_images", "split"} - {*read}
        idle = dict.fromkeys(names, f"metric={','.join(of_models)} does not read it")
        of_each = [idle_in(f"metric={name}", get_object(metrics[name]._target_)) for name in of_models]
        idle |= {key: why for key, why in of_each[0].items() if all(key in each for each in of_each)}
    if config.images is not None and config.ckpt is None and not of_models:
        of_a_model = (*group_names(builds=True), "weights", "seed", "keep_images")
        idle = dict.fromkeys(of_a_model, f"images={config.images} come from no model")
    return idle | idle_without_training(config, typed)


def idle_without_training(config: DictConfig, typed: Set[str]) -> dict[str, str]:
    """What sample.py and evaluate.py do not use of the groups that train.py has too."""
    fields = {f"trainer.{field}" for field in OF_EVERY_COMMAND}
    idle = {key for key in typed if key.startswith("trainer.") and key not in fields}
    idle |= {"data.flip", "data.seed", "data.num_train", "data.latents"}
    return dict.fromkeys(idle, "only train.py reads it")
