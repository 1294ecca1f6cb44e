"""The commands that repeat runs: from their stored overrides, or derived from their settings."""

import functools
import json
import math
import shlex
from pathlib import Path

from omegaconf import OmegaConf

from ddpm.base.nested import flatten
from ddpm.base.program import CONF
from ddpm.base.untrusted import yaml_file
from ddpm.checkpoint.upgrade import upgrade_word
from ddpm.config.compose import compose
from ddpm.config.run_settings import Config
from ddpm.runs.arguments import quote_for_hydra


def read_overrides(folder: Path) -> list[str] | None:
    """The overrides of a run, in a sweep with its own values; None if they are not stored."""
    path = folder / ".hydra" / "overrides.yaml"
    words = (yaml_file(path) or []) if path.is_file() else None
    if words is not None and not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
        raise ValueError(f"{path.name} must be a list of strings")
    return None if words is None else [upgrade_word(word) for word in words]


def train_command(words: list[str]) -> str:
    return " ".join(["python train.py", *map(shlex.quote, words)])


def sweep_command(runs: list[list[str]]) -> str:
    """One command that trains all runs, if they are all combinations of some values; else empty."""
    pairs = [dict(word.split("=", 1) for word in words if "=" in word) for words in runs]
    values = {key: list(dict.fromkeys(each.get(key, "") for each in pairs)) for key in pairs[0]}
    same_keys = all([*each] == [*values] and len(each) == len(words) for each, words in zip(pairs, runs, strict=True))
    is_each = 1 < len(runs) == len({*map(tuple, runs)}) == math.prod(map(len, values.values()))
    has_lists = any("," in value for each in values.values() if len(each) > 1 for value in each)
    words = ["-m", *(f"{key}={','.join(each)}" for key, each in values.items())]
    return train_command(words) if same_keys and is_each and not has_lists else ""


@functools.cache
def default_config() -> Config:
    return flatten(OmegaConf.to_container(compose(CONF, "train", []), resolve=False))


def derive_overrides(config: Config) -> list[str]:
    """Overrides that change the defaults to these values."""
    defaults = default_config()
    words = {key: quote_for_hydra(v) if isinstance(v, str) else json.dumps(v) for key, v in config.items()}
    changed = [key for key, v in config.items() if defaults.get(key, ...) != v and "${" not in str(v)]
    other_parts = tuple(key.removesuffix("_target_") for key in changed if key.endswith("._target_"))
    removed = [key for key in defaults if key not in config and key.startswith(other_parts)]
    return [f"{'' if key in defaults else '+'}{key}={words[key]}" for key in changed] + [f"~{key}" for key in removed]
