"""What was typed to start a run, by which W&B tells runs apart: text, of which nothing is interpolated."""

import re
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ddpm.training.wandb_run import NAME_LENGTH, TAG_LENGTH, Labels

NOT_IN_NAME = ("experiment", "name", "resume", "logger")
"""Groups and fields that change nothing in the training, or that the name begins with."""


def overrides() -> list[str]:
    words = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return [re.sub(r"\\(.)", r"\1", word) for word in words]  # a sweep writes $\{x\} for ${x}


def options() -> dict[str, str | None]:
    """The chosen option of each group, as `{"schedule": "cosine", ...}`."""
    if not HydraConfig.initialized():
        return {}
    choices = OmegaConf.to_container(HydraConfig.get().runtime.choices, resolve=False)
    return {group: option for group, option in choices.items() if not group.startswith("hydra/")}


def labels(config: DictConfig) -> Labels:
    """The name is the experiment's, or the one that was given, and what was changed: "mnist schedule=linear"."""
    name = str(config.get("name"))
    if not HydraConfig.initialized():
        return Labels(name, None, [])
    words = overrides()
    fields = [word.lstrip("+~").partition("=")[0].partition(".")[0] for word in words]
    if "name" not in fields:
        name = options().get("experiment") or name
    name = " ".join([name, *(word for word, field in zip(words, fields, strict=True) if field not in NOT_IN_NAME)])
    hydra = HydraConfig.get()
    sweeps = hydra.mode == RunMode.MULTIRUN
    number = f" ({hydra.job.num})" if sweeps else ""  # tells names apart that are too long
    group = shortened(Path(hydra.sweep.dir).name, NAME_LENGTH) if sweeps else None
    tags = dict.fromkeys(shortened(word, TAG_LENGTH) for word in words)
    return Labels(shortened(name, NAME_LENGTH, number), group, list(tags))


def shortened(text: str, length: int, ending: str = "") -> str:
    return text if len(text) <= length else f"{text[: length - 3 - len(ending)]}...{ending}"
