"""Settings of runs as plain data: read and compare them, and derive the commands that repeat the runs."""

import functools
import json
import math
import re
import shlex
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ddpm.base.nested import flatten
from ddpm.base.program import CONF
from ddpm.base.untrusted import yaml_file
from ddpm.checkpoint import groups
from ddpm.checkpoint.stored_config import split_fitted, upgrade_config
from ddpm.checkpoint.upgrade import upgrade_word
from ddpm.config.compose import compose
from ddpm.runs.arguments import quote_for_hydra

MAX_BYTES = 64 * 2**10
WHOLE_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
ABSENT = "—"
MOST_IN_A_NAME = 3  # settings
BOOKKEEPING = ("name", "data.source", "data.num_workers", "compile", "channels_last", "sample_every_n_steps")

Config = dict[str, Any]  # group.field -> value
Columns = dict[str, list[tuple[str, str, str]]]
"""Setting -> for each run: its value, other fields of the group that differ, and its text in a label."""


def read_config(folder: Path) -> Config:
    """The flat configuration of a run, for older runs as stored by Hydra; empty if none is stored."""
    for path in (folder / "checkpoints" / "config.yaml", folder / ".hydra" / "config.yaml"):
        if path.is_file():
            stored = yaml_file(path)
            if isinstance(stored, dict):
                stored = {key: value for key, value in stored.items() if key not in groups.group_names(stored=False)}
            return flatten(split_fitted(upgrade_config(stored, path.name))[0])
    return {}


def read_overrides(folder: Path) -> list[str] | None:
    """The overrides of a run, in a sweep with its own values; None if they are not stored."""
    path = folder / ".hydra" / "overrides.yaml"
    words = (yaml_file(path) or []) if path.is_file() else None
    if words is not None and not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
        raise ValueError(f"{path.name} must be a list of strings")
    return None if words is None else [upgrade_word(word) for word in words]


def resolve_reference(config: Config, key: str) -> Any:
    """The value of a field, with references to other fields resolved. References to groups are kept."""
    value = config.get(key)
    for _ in range(10):
        reference = WHOLE_REFERENCE.fullmatch(str(value))
        value = config.get(reference[1], value) if reference else value
    return value


def format_setting(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, dict):
        return ", ".join(f"{key} {format_setting(each)}" for key, each in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def differing_settings(configs: list[Config]) -> tuple[Columns, dict[str, str]]:
    """Settings that differ, without references to other settings, and settings that all runs share."""
    shown = [{key: format_setting(resolve_reference(config, key)) for key in config} for config in configs]
    keys = dict.fromkeys(key for each in shown for key in each)
    unequal = [key for key in keys if len({each.get(key) for each in shown if each}) > 1]
    parts = [key.removesuffix("._target_") for key in unequal if key.endswith("._target_")]
    parts = [part for part in parts if not any(part.startswith(f"{outer}.") for outer in parts)]
    columns = {}
    for part in parts:
        names = [each.get(f"{part}._target_", each.get(part, ABSENT)).rpartition(".")[2] for each in shown]
        fields = [key for key in unequal if key.startswith(f"{part}.") and not key.endswith("_")]
        rest = [", ".join(f"{key[len(part) + 1 :]} {each[key]}" for key in fields if key in each) for each in shown]
        columns[part] = list(zip(names, rest, names, strict=True))
    for key in unequal:
        in_a_part = any(f"{key}.".startswith(f"{part}.") for part in parts)
        if not in_a_part and not all("${" in str(config.get(key, "${")) for config in configs):
            values = [each.get(key, ABSENT) for each in shown]
            columns[key] = [(value, "", f"{key.rpartition('.')[2]} {value}") for value in values]
    return columns, {key: next(each[key] for each in shown if each) for key in keys if key not in unequal}


def run_labels(columns: Columns, folders: list[str]) -> list[str]:
    """A short name for each run: values of a few settings that differ, or its folder; both if values repeat."""
    shown = [cells for key, cells in columns.items() if not key.startswith(BOOKKEEPING)]
    names = list(folders)
    for run, cells in enumerate(zip(*shown, strict=True) if len(shown) <= MOST_IN_A_NAME else ()):
        if any(value != ABSENT for value, _, _ in cells):
            names[run] = " · ".join(word for _, _, word in cells)[:60]
    pairs = list(zip(names, folders, strict=True))
    return [name if names.count(name) == 1 or name == folder else f"{name} ({folder})" for name, folder in pairs]


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
    words = {
        key: quote_for_hydra(value) if isinstance(value, str) else json.dumps(value) for key, value in config.items()
    }
    changed = [key for key, v in config.items() if defaults.get(key, ...) != v and "${" not in str(v)]
    other_parts = tuple(key.removesuffix("_target_") for key in changed if key.endswith("._target_"))
    removed = [key for key in defaults if key not in config and key.startswith(other_parts)]
    return [f"{'' if key in defaults else '+'}{key}={words[key]}" for key in changed] + [f"~{key}" for key in removed]
