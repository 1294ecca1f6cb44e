"""In which settings runs differ, told the way a person chose them: a whole group where its part is another one."""

from dataclasses import dataclass, field
from typing import Any

from ddpm.report.settings import followed, is_reference

ABSENT = "—"
MOST_IN_A_NAME = 3  # settings
BOOKKEEPING = ("name", "data.source", "data.num_workers", "compile", "channels_last", "sample_every_n_steps")


@dataclass
class Differences:
    """columns: setting -> one text a run. details: the same, with what else belongs to a chosen part.

    common: settings that all runs share.
    """

    columns: dict[str, list[str]] = field(default_factory=dict)
    details: dict[str, list[str]] = field(default_factory=dict)
    common: dict[str, str] = field(default_factory=dict)


def differences(configs: list[dict[str, Any]]) -> Differences:
    """Of leaves by name. A setting that only repeats another by a reference is no difference of its own."""
    found = Differences()
    known = [config for config in configs if config]
    keys = list(dict.fromkeys(key for config in known for key in config))
    unequal = [key for key in keys if len({repr(followed(config, key)) for config in known}) > 1]
    chosen = [key.removesuffix("._target_") for key in unequal if key.endswith("._target_")]
    chosen = [group for group in chosen if not any(group.startswith(f"{outer}.") for outer in chosen if outer != group)]
    for group in chosen:
        found.columns[group] = [part_name(config, group) for config in configs]
        found.details[group] = [part_fields(config, group, unequal) for config in configs]
    for key in unequal:
        if any(key == group or key.startswith(f"{group}.") for group in chosen):
            continue
        if all(is_reference(config.get(key, "${")) for config in known):
            continue
        found.columns[key] = [text(followed(config, key)) if key in config else ABSENT for config in configs]
    found.common = {key: text(followed(known[0], key)) for key in keys if key not in unequal} if known else {}
    return found


def part_name(config: dict[str, Any], group: str) -> str:
    target = config.get(f"{group}._target_", config.get(group, ABSENT))
    return text(target).rpartition(".")[2] or ABSENT


def part_fields(config: dict[str, Any], group: str, unequal: list[str]) -> str:
    """Fields of a part that are not the same for all runs, as "offset 0.008"."""
    keys = [key for key in unequal if key.startswith(f"{group}.") and not key.endswith("_") and key in config]
    return ", ".join(f"{key.removeprefix(group + '.')} {text(followed(config, key))}" for key in keys)


def text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return f"[{', '.join(map(text, value))}]"
    return str(value)


def labels(found: Differences, folders: list[str]) -> list[str]:
    """A short name for each run: its values of the few settings that differ, or its folder.

    Both where several runs have the same values.
    """
    told = {key: values for key, values in found.columns.items() if not key.startswith(BOOKKEEPING)}
    if len(told) > MOST_IN_A_NAME:
        return folders
    names = []
    for run, folder in enumerate(folders):
        words = []
        for key, values in told.items():
            words.append(values[run] if key in found.details else f"{key.rpartition('.')[2]} {values[run]}")
        told_apart = any(value != ABSENT for value in (values[run] for values in told.values()))
        names.append(" · ".join(words)[:60] if told_apart else folder)
    return [
        name if names.count(name) == 1 or name == folder else f"{name} ({folder})"
        for name, folder in zip(names, folders, strict=True)
    ]
