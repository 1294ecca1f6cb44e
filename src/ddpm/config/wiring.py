"""From a leaf of the configuration to an object, with errors that name the field by its whole key."""

import re
from collections.abc import Callable
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig


def instantiate(config: DictConfig, key: str, **fitted: Any) -> Any:
    """Hydra's instantiate; a ValueError names the field by its whole key, as in "schedule.offset must be ...".

    fitted: arguments that Hydra must not see, since it would take a text in them for an interpolation.
    """
    try:
        part = hydra.utils.instantiate(config, _convert_="all", **({"_partial_": True} if fitted else {}))
    except InstantiationException as error:
        cause = error.__cause__
        if not isinstance(cause, ValueError):
            raise
        inner = re.search(r"full_key: (\S+)", str(error))
        raise name_field(cause, inner.group(1) if inner else key) from error
    return complete(part, key, **fitted) if fitted else part


def complete(factory: Callable[..., Any], key: str, **arguments: Any) -> Any:
    """The rest of the arguments, those that no file knows, for what the configuration left `_partial_`."""
    try:
        return factory(**arguments)
    except ValueError as error:
        raise name_field(error, key) from error


def name_field(error: ValueError, key: str) -> ValueError:
    """The error with the key before a bare field name."""
    bare = re.match(r"\w+ must ", str(error))
    return ValueError(f"{key}.{error}" if bare else str(error))
