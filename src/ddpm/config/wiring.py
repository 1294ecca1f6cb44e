"""Instantiate parts of a configuration, with errors that name the full key of a field."""

import re
from collections.abc import Callable
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig


def instantiate(config: DictConfig, key: str, **fitted: Any) -> Any:
    """Hydra's instantiate, with ValueErrors that name the full key: "schedule.offset must be ...".

    fitted: further arguments that bypass Hydra, because it would interpolate texts in them.
    """
    try:
        part = hydra.utils.instantiate(config, _convert_="all", **({"_partial_": True} if fitted else {}))
    except InstantiationException as error:
        cause = error.__cause__
        inner = re.search(r"full_key: (\S+)", str(error))
        key = inner.group(1) if inner else key
        if isinstance(cause, TypeError) and (unknown := re.search(r"unexpected keyword argument '(\w+)'", str(cause))):
            raise ValueError(f"there is no '{key}.{unknown.group(1)}' to set; leave it out") from error
        if not isinstance(cause, ValueError):
            raise
        raise name_field(cause, key) from error
    return complete(part, key, **fitted) if fitted else part


def is_chosen(config: DictConfig, group: str) -> bool:
    """Whether a group that may be none has an option. Fields of an experiment may be left of one that it chose."""
    return "_target_" in (config.get(group) or {})


def complete(factory: Callable[..., Any], key: str, **arguments: Any) -> Any:
    """Call a `_partial_` factory with the remaining arguments, which come from other parts."""
    try:
        return factory(**arguments)
    except ValueError as error:
        raise name_field(error, key) from error


def name_field(error: ValueError, key: str) -> ValueError:
    """The error with `key.` before the field name, if the message starts with one."""
    bare = re.match(r"\w+ must ", str(error))
    return ValueError(f"{key}.{error}" if bare else str(error))
