"""Convert the configuration of a run to plain containers that any machine can read, and back."""

import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ddpm.checkpoint import groups
from ddpm.checkpoint.stored_config import MAX_VALUES, REFERENCE, TEXT, Fitted, copy_plain, split_fitted


def to_portable(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain containers, without settings of the machine: folders, loggers, callbacks.

    References are kept, so that `variance=large` still changes the sampler of a loaded model.
    """
    local = groups.group_names(stored=False)
    container = OmegaConf.to_container(config, resolve=False)
    stored = resolve_env({key: value for key, value in container.items() if key not in local}, config)
    if "name" in stored.get("data", {}):
        stored["data"]["name"] = config.data.name  # see `stored_config.TEXT`
    stored = with_absolute_paths(stored)
    return copy_plain(stored, "", iter(range(MAX_VALUES)), "this run")  # raises now if it could not be read again


PATHS = re.compile(
    r"data\.(\w+\.)*(root|path|label_images)|codec\.first_stage|text\.(path|tokenizer)|guidance\.(guide|classifier)"
    r"|perceptual\.weights|(\w+\.)*features\.weights|metric\.(\w+\.)*(weights|root)|anomalies\.root"
)
"""Fields that name a file or folder."""


def with_absolute_paths(stored: Any, key: str = "") -> Any:
    """The plain containers with absolute paths, so that a run can be read from another working directory.

    A text that may be another kind of name, as one of the hub, is a path if its first folder exists.
    """
    if isinstance(stored, dict):
        return {k: with_absolute_paths(value, f"{key}.{k}" if key else str(k)) for k, value in stored.items()}
    if not PATHS.fullmatch(key):
        return stored
    if isinstance(stored, list):
        return [with_absolute_paths(value, key) for value in stored]
    if not isinstance(stored, str) or not stored or "${" in stored or stored.startswith("~"):
        return stored
    exists = Path(stored).exists() or (key.startswith("data.") and Path(Path(stored).parts[0]).exists())
    return str(Path(stored).absolute()) if exists else stored


def resolve_env(container: Any, config: Any) -> Any:
    """The plain `container` of `config` with the values of resolver interpolations.

    `${oc.env:DATA}` is replaced, because a stored configuration may not contain it; `${variance}` stays.
    """
    if not isinstance(container, dict | list):
        return container
    pairs = container.items() if isinstance(container, dict) else enumerate(container)
    values = {key: resolve_env(value, config[key]) if isinstance(value, dict | list) else value for key, value in pairs}
    for key, value in values.items():
        if isinstance(value, str) and "${" in REFERENCE.sub("", value):
            found = config[key]
            values[key] = OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found
    return values if isinstance(container, dict) else list(values.values())


def open_config(stored: dict[str, Any]) -> tuple[DictConfig, Fitted]:
    """A stored configuration for OmegaConf and Hydra, and its fitted values, which they must not interpolate."""
    config, fitted = split_fitted(stored)
    group, field = TEXT.split(".")
    if isinstance(config.get(group), dict) and isinstance(config[group].get(field), str):
        config[group] = {**config[group], field: config[group][field].replace("${", "\\${")}
    return OmegaConf.create(config), fitted
