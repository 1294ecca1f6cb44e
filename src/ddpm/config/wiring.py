"""Instantiate parts of a configuration, with errors that name the full key of a field."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, Node, OmegaConf

from ddpm.config.field_types import check_types


def instantiate(config: DictConfig, key: str, **fitted: Any) -> Any:
    """Hydra's instantiate, with ValueErrors that name the full key: "schedule.offset must be ...".

    fitted: further arguments that bypass Hydra, because it would interpolate texts in them.
    """
    check_types(config, key, fitted)
    try:
        part = hydra.utils.instantiate(config, _convert_="all", **({"_partial_": True} if fitted else {}))
    except InstantiationException as error:
        cause = error.__cause__
        inner = re.search(r"full_key: (\S+)", str(error))
        key = inner.group(1) if inner else key
        refuse_unknown(cause, key)
        if not isinstance(cause, ValueError):
            raise
        raise name_field(cause, key, OmegaConf.select(config._get_root(), key) or config) from error
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
    except TypeError as error:
        refuse_unknown(error, key)
        raise


def refuse_unknown(error: BaseException | None, key: str) -> None:
    """Raise ValueError if the error is that of an argument that a constructor does not have."""
    if isinstance(error, TypeError) and (unknown := re.search(r"unexpected keyword argument '(\w+)'", str(error))):
        raise ValueError(f"there is no '{key}.{unknown.group(1)}' to set; leave it out") from error


def name_field(error: ValueError, key: str, part: Any = ()) -> ValueError:
    """The error with the full key of its field. A part may have another place than the one that its message names."""
    found = re.match(r"((?:\w+\.)*)(\w+) must ", str(error))
    if not found or (found[1] and found[2] not in part):
        return ValueError(str(error))
    return ValueError(f"{key}.{str(error)[len(found[1]) :]}")


@contextmanager
def naming_fields(part: Any, key: str) -> Iterator[None]:
    """Name the fields of a part in full, as metric.nll.split, in errors of its work."""
    try:
        yield
    except ValueError as error:
        if hasattr(part, str(error).partition(" must ")[0]):
            raise name_field(error, key) from error
        raise


def source_of(config: DictConfig, field: str) -> str:
    """The field that a user sets: for one that refers to another, as ${data.batch_size}, the other one."""
    node, names = config, field.split(".")
    for place, name in enumerate(names):
        node = node._get_node(name) if isinstance(node, DictConfig) and name in node.keys() else None  # noqa: SIM118
        text = node._value() if isinstance(node, Node) and node._is_interpolation() else ""
        if found := re.fullmatch(r"\$\{(\.*)([\w.]+)\}", text):
            above = names[: place + 1 - len(found[1])] if found[1] else []
            return source_of(config, ".".join([*above, found[2], *names[place + 1 :]]))
    return field


def name_source(config: DictConfig, message: str) -> str:
    """The message of an error about a field, with the field that the user sets."""
    field = re.match(r"[\w.]+(?= must )", message)
    return source_of(config, field[0]) + message[field.end() :] if field else message
