"""The settings of stored runs and results as plain data: read them, find what differs, and name each run by it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddpm.base.nested import flatten
from ddpm.base.untrusted import yaml_file
from ddpm.checkpoint import groups
from ddpm.checkpoint.stored_config import split_fitted, upgrade_config
from ddpm.config.option_names import TARGET, name_option, option_of, parse_part

WHOLE_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
ABSENT = "—"
MOST_IN_A_NAME, LONGEST_VALUE = 3, 40  # settings, characters
BOOKKEEPING = (
    *("name", "data.source", "data.num_workers", "compile", "channels_last", "sample_every_n_steps"),
    *("checkpoint_every_n_steps", "trainer.accelerator", "trainer.devices", "trainer.log_every_n_steps"),
)
"""Beginnings of settings that do not name a run."""

Config = dict[str, Any]  # group.field -> value
Columns = dict[str, list[tuple[str, str]]]
"""Setting -> for each run: its value, and the other fields of the part that differ."""


def read_config(folder: Path) -> Config:
    """The flat configuration of a run, for older runs as stored by Hydra; empty if none is stored."""
    for path in (folder / "checkpoints" / "config.yaml", folder / ".hydra" / "config.yaml"):
        if path.is_file():
            stored = yaml_file(path)
            if isinstance(stored, dict):
                stored = {key: value for key, value in stored.items() if key not in groups.group_names(stored=False)}
            return flatten(split_fitted(upgrade_config(stored, path.name))[0])
    return {}


def subject_settings(subject: Mapping[str, Any]) -> Config:
    """The settings in the subject of a result, flat, in the form of a configuration. Hashes and places are left out."""
    found: Config = {}
    for key, value in flatten(subject).items():
        part = parse_part(str(value))
        if part:
            fields = {name: text if name == TARGET else name_option(text) for name, text in part.items()}
            found |= {f"{key}.{name}": text for name, text in fields.items()}
        elif not key.endswith(("ckpt", "run", "images", "hash", "sha256")):
            found[{"steps": "sampler.steps", "seed": "sampling_seed"}.get(key, key)] = value
    return found


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


def differing_settings(configs: Sequence[Config]) -> tuple[Columns, dict[str, str]]:
    """Settings that differ, without references to others, and settings that all share. Parts: by their options."""
    shown = [{key: format_setting(resolve_reference(config, key)) for key in config} for config in configs]
    keys = dict.fromkeys(key for each in shown for key in each)
    options: dict[str, list[tuple[str, list[str]]]] = {}
    for part in (key.removesuffix(f".{TARGET}") for key in keys if key.endswith(f".{TARGET}")):
        options[part] = [option_in(config, part) for config in configs]
        for each, (name, _) in zip(shown, options[part], strict=True):
            each |= {f"{part}.{TARGET}": name} if f"{part}.{TARGET}" in each else {}
    unequal = [key for key in keys if len({each.get(key) for each in shown if each}) > 1]
    parts = [part for part in options if f"{part}.{TARGET}" in unequal]
    parts = [part for part in parts if not any(part.startswith(f"{outer}.") for outer in parts)]
    columns = {}
    for part in parts:
        rest = [
            ", ".join(f"{field} {each[f'{part}.{field}']}" for field in changed if f"{part}.{field}" in unequal)
            for each, (_, changed) in zip(shown, options[part], strict=True)
        ]
        columns[part] = [(name, more) for (name, _), more in zip(options[part], rest, strict=True)]
    for key in unequal:
        in_a_part = any(f"{key}.".startswith(f"{part}.") for part in parts)
        if not in_a_part and not all("${" in str(config.get(key, "${")) for config in configs):
            columns[key] = [(each.get(key, ABSENT), "") for each in shown]
    return columns, {key: next(each[key] for each in shown if each) for key in keys if key not in unequal}


def option_in(config: Config, part: str) -> tuple[str, list[str]]:
    """The option of a part, and the fields that differ from it; its value if it is no part in this configuration."""
    fields = {key[len(part) + 1 :]: value for key, value in config.items() if key.startswith(f"{part}.")}
    return option_of(fields) if TARGET in fields else (format_setting(config.get(part, ABSENT)), [])


def run_labels(columns: Columns, folders: Sequence[str]) -> list[str]:
    """A name for each run from the settings that differ, as `schedule=cosine objective=v`; of many settings, from the
    first ones that tell the runs apart. The folder if there are none; both if names repeat."""
    shown = {
        key: [value for value, _ in cells]
        for key, cells in columns.items()
        if not key.startswith(BOOKKEEPING) and max(len(value) for value, _ in cells) <= LONGEST_VALUE
    }
    if len(shown) > MOST_IN_A_NAME:
        shown = distinguishing(shown, len(folders))
    if len(shown) > MOST_IN_A_NAME:
        return list(folders)
    words = [[f"{key}={value}" for value in cells] for key, cells in shown.items()]
    names = [" ".join(word for word in each if not word.endswith(f"={ABSENT}")) for each in zip(*words, strict=True)]
    names = names or list(folders)
    pairs = list(zip(names, folders, strict=True))
    return [folder if not name else name if names.count(name) == 1 else f"{name} ({folder})" for name, folder in pairs]


def distinguishing(columns: dict[str, list[str]], num_runs: int) -> dict[str, list[str]]:
    """The first columns that together give each run other values, or as many of them as possible."""
    chosen: dict[str, list[str]] = {}
    kinds = [()] * num_runs
    for key, cells in columns.items():
        finer = [(*kind, cell) for kind, cell in zip(kinds, cells, strict=True)]
        if len(set(finer)) > len(set(kinds)):
            chosen[key], kinds = cells, finer
    return chosen
