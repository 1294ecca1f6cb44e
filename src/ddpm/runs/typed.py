"""Names and tags of a run for W&B from its overrides, as text without interpolation."""

import re
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf


def chosen_options() -> dict[str, str | None]:
    """The selected option of each group: `{"schedule": "cosine", ...}`."""
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return {group: option for group, option in choices.items() if not group.startswith("hydra/")}


def wandb_labels(config: DictConfig) -> dict[str, Any]:
    """name, group and tags: "mnist schedule=linear", the folder of the sweep, and the overrides."""
    if not HydraConfig.initialized():
        return {"name": str(config.name)}
    hydra = HydraConfig.get()
    words = [re.sub(r"\\(.)", r"\1", word) for word in OmegaConf.to_container(hydra.overrides.task, resolve=False)]
    changes = [word for word in words if not re.match(r"[+~]*(experiment|resume|logger)\b", word)]
    changes.sort(key=lambda word: word in sys.argv)  # values of a sweep come first: W&B allows 128 characters
    return {
        "name": " ".join([chosen_options().get("experiment") or config.name, *changes])[:128],
        "group": Path(hydra.sweep.dir).name if hydra.mode == RunMode.MULTIRUN else None,
        "tags": words,
    }
