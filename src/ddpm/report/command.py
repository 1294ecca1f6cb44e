"""The command that trains a run again: as it was typed, or else put together from what differs from the defaults."""

import math
import shlex
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from ddpm.report.settings import OF_ONE_MACHINE, is_reference, leaves

CONF = Path(__file__).resolve().parents[3] / "conf"
LEFT_OUT = (*OF_ONE_MACHINE, "metric", "features", "features_batch_size", "evaluate")


def command(words: list[str]) -> str:
    return " ".join(["python train.py", *map(shlex.quote, words)])


def sweep(runs: list[list[str]]) -> list[str] | None:
    """The words of one command that trains all of these runs, where they are every combination of some values."""
    pairs = [[word.partition("=") for word in words] for words in runs]
    keys = [[key for key, _, _ in each] for each in pairs]
    if len(runs) < 2 or any(each != keys[0] for each in keys) or len(set(keys[0])) < len(keys[0]):
        return None
    values = [list(dict.fromkeys(each[k][2] for each in pairs)) for k in range(len(keys[0]))]
    distinct = {tuple(words) for words in runs}
    if len(distinct) != len(runs) or math.prod(map(len, values)) != len(runs):
        return None
    if any("," in value for each in values if len(each) > 1 for value in each):
        return None
    return ["-m", *(f"{key}={','.join(each)}" for key, each in zip(keys[0], values, strict=True))]


def derived(config: dict[str, Any], conf: Path = CONF) -> list[str] | None:
    """Overrides that lead from the defaults to these leaves; None where there is no folder of configurations.

    A group whose `_target_` differs is chosen by the option that has this target; fields that still differ follow.
    """
    if not (conf / "train.yaml").is_file() or not config:
        return None
    defaults = composed([], conf)
    choices = []
    for key, target in config.items():
        group = key.removesuffix("._target_")
        if group == key or not group.isidentifier() or defaults.get(key) == target:
            continue
        option = next((o for o in sorted((conf / group).glob("*.yaml")) if target_of(o) == target), None)
        if option:
            choices.append(f"{group}={option.stem}")
    base = composed(choices, conf) if choices else defaults
    fields = []
    for key, value in config.items():
        if base.get(key, ...) != value and not key.endswith("_target_") and not is_reference(value):
            fields.append(f"{'' if key in base else '+'}{key}={shown(value)}")
    return choices + fields


def composed(words: list[str], conf: Path) -> dict[str, Any]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        container = OmegaConf.to_container(compose("train", overrides=words), resolve=False)
    GlobalHydra.instance().clear()
    return dict(leaves({key: value for key, value in container.items() if key not in LEFT_OUT}))


def target_of(option: Path) -> str | None:
    content = yaml.safe_load(option.read_text())
    return content.get("_target_") if isinstance(content, dict) else None


def shown(value: Any) -> str:
    """A value in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{shown(each)}" for key, each in value.items()) + "}"
    if isinstance(value, str) and not value.replace("_", "").replace("-", "").replace(".", "").isalnum():
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)
