"""What a run was told to do: its configuration as `group.field` -> value, and the words that were typed.

A stranger's YAML is read as plain data, and references in it are followed as text: no resolver runs.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddpm.stored_config import completed_config, split_fitted
from ddpm.untrusted import yaml_file

MAX_BYTES = 64 * 2**10
MAX_OVERRIDES = 300
OF_ONE_MACHINE = ("run_dir", "logger", "callbacks", "keep", "resume", "dry_run", "hydra")
WHOLE_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def read_config(folder: Path) -> dict[str, Any]:
    """The leaves of a run's configuration, of older runs as Hydra stored it; empty where none is stored."""
    for path in (folder / "checkpoints" / "config.yaml", folder / ".hydra" / "config.yaml"):
        if not path.is_file():
            continue
        stored = yaml_file(path, MAX_BYTES)
        if isinstance(stored, dict):
            stored = {key: value for key, value in stored.items() if key not in OF_ONE_MACHINE}
        config, _ = split_fitted(completed_config(stored, path.name))
        return dict(leaves(config))
    return {}


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(config, dict) or not config:
        yield prefix, config
        return
    for name, value in config.items():
        yield from leaves(value, f"{prefix}.{name}" if prefix else str(name))


def followed(config: dict[str, Any], key: str) -> Any:
    """The value of a leaf; of one that refers to another, the other's. A reference to a group stays as written."""
    value = config.get(key)
    for _ in range(10):
        reference = WHOLE_REFERENCE.fullmatch(value) if isinstance(value, str) else None
        if not reference or reference[1] not in config:
            break
        value = config[reference[1]]
    return value


def is_reference(value: Any) -> bool:
    return isinstance(value, str) and "${" in value


def read_overrides(folder: Path) -> list[str] | None:
    """What was typed after train.py, in a sweep with this run's values; None where it is not stored."""
    path = folder / ".hydra" / "overrides.yaml"
    if not path.is_file():
        return None
    words = yaml_file(path, MAX_BYTES) or []
    if not isinstance(words, list) or len(words) > MAX_OVERRIDES:
        raise ValueError(f"{path.name} must be a list of at most {MAX_OVERRIDES} overrides")
    if any(not isinstance(word, str) or len(word) > 2_000 for word in words):
        raise ValueError(f"{path.name} must be a list of texts, each of at most 2,000 characters")
    return words
