"""Check and upgrade a configuration that was read from a file.

Hydra calls whatever `_target_` names, and OmegaConf's resolvers can read the environment. Therefore a configuration is
checked here first. It may contain plain values, references to its own fields, and targets among the parts of a model.
"""

import functools
import importlib
import inspect
import re
from collections.abc import Container, Iterator, Mapping
from typing import Any

from ddpm.base import check
from ddpm.checkpoint import groups
from ddpm.checkpoint.definitions import definitions
from ddpm.checkpoint.trust import trust_hint, trusted_packages
from ddpm.checkpoint.upgrade import upgrade

FITTED = "fitted"
"""The field of a stored configuration with the values fitted to the data, by group. They are never interpolated."""

Fitted = Mapping[str, Mapping[str, Any]]

TEXT = "data.name"
"""A field that is stored as plain text and never interpolated."""

OF_THE_DATA = {"cond": ("num_classes", "names"), "process": ("fitted",)}
"""Fitted fields that older configurations store in the groups themselves."""

PARTS = (
    *("ddpm.diffusion.", "ddpm.networks.", "ddpm.data.", "ddpm.model.codec."),
    *("ddpm.model.latent_codec.", "ddpm.base.strokes."),
    *("ddpm.model.ema.", "ddpm.training.optimizer.", "ddpm.metrics.perceptual."),
)
"""Modules that a stored configuration may name. Other modules of this package write files or start runs."""

MAX_DEPTH = 20
MAX_VALUES = 10_000
DOTTED = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+")
REFERENCE = re.compile(r"\$\{[\w.]+\}")


def check_config(stored: Any, where: str, known: Container[Any] = ()) -> dict[str, Any]:
    """`upgrade_config`, and ValueError for a `_target_` that is no part of this project, nor trusted, nor `known`."""
    config = upgrade_config(stored, where)
    for target in targets(config):
        if not is_ours(target) and target not in known:
            raise ValueError(
                f"{where} names code that is not a part of ddpm's models: {target!r}; it was not loaded"
                f"{trust_hint(target)}"
            )
    return config


def upgrade_config(stored: Any, where: str) -> dict[str, Any]:
    """A copy of the configuration, upgraded to the current version. No code is run.

    where: the file, for error messages. Raises ValueError for content that is not allowed.
    """
    if not isinstance(stored, dict):
        check.fail(f"the configuration in {where}", type(stored).__name__, "a mapping of groups")
    given = stored.get(FITTED, {})
    if not isinstance(given, dict) or not all(isinstance(fields, dict) for fields in given.values()):
        check.fail(f"{FITTED} in {where}", type(given).__name__, "a mapping of groups to their fields")
    config, fitted = split_fitted(stored)
    config = upgrade(copy_plain(config, "", iter(range(MAX_VALUES)), where), groups.old_config_defaults())
    return {**config, FITTED: copy_plain(fitted, FITTED, iter(range(MAX_VALUES)), where, is_text=True)}


def split_fitted(stored: dict[str, Any]) -> tuple[dict[str, Any], Fitted]:
    """A stored configuration without its fitted values, and the fitted values."""
    config = {name: group for name, group in stored.items() if name != FITTED}
    fitted = dict(stored.get(FITTED, {}))
    for name, fields in OF_THE_DATA.items():
        group = config.get(name)
        found = {field: group.get(field) for field in fields} if isinstance(group, dict) else {}
        found = {field: value for field, value in found.items() if value is not None and not isinstance(value, str)}
        if found:
            config[name] = {**group, **dict.fromkeys(found)}
            fitted[name] = {**found, **fitted.get(name, {})}
    return config, fitted


def refuse_without_model(config: dict[str, Any], where: str) -> None:
    """Raise ValueError unless the configuration has all groups that a model is built from."""
    needed = groups.group_names(builds=True, may_be_none=False)
    for group in (*needed, "data", "trainer"):
        if not isinstance(config.get(group), dict) or (group in needed and "_target_" not in config[group]):
            raise ValueError(f"the configuration in {where} has no {group!r}, so no model can be built from it")


def copy_plain(value: Any, key: str, values: Iterator[int], where: str, depth: int = 0, is_text: bool = False) -> Any:
    """A copy of dicts, lists, tuples (as lists) and scalars.

    values: iterator that limits the number of values, because one list can occur many times. is_text: strings are plain
    text and may contain "${".
    """
    if next(values, None) is None or depth > MAX_DEPTH:
        raise ValueError(f"the configuration in {where} is too large or too deeply nested: {key or 'at its top'}")
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str) or len(name) > 100:
                raise ValueError(f"the configuration in {where} has an invalid field name at {key or 'its top'}")
        return {
            name: copy_plain(item, f"{key}.{name}".strip("."), values, where, depth + 1, is_text)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [copy_plain(item, f"{key}[{i}]", values, where, depth + 1, is_text) for i, item in enumerate(value)]
    if type(value) is str:
        if not (is_text or key == TEXT) and "${" in REFERENCE.sub("", value):
            raise ValueError(
                f"{where} has more than a reference to itself at {key}: {value!r}; an interpolation in a stored "
                "configuration may be ${field} or ${group.field} only"
            )
        return value
    if value is None or type(value) in (bool, float) or (type(value) is int and abs(value) < 2**63):
        return value
    raise ValueError(f"the configuration in {where} has {type(value).__name__} at {key}, which is not a plain value")


def targets(config: Any) -> Iterator[Any]:
    """Every `_target_` in plain containers."""
    if isinstance(config, dict):
        if "_target_" in config:
            yield config["_target_"]
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from targets(value)


def is_ours(target: Any) -> bool:
    """Whether a dotted name is MODULE.NAME of a function or class defined in `PARTS` or in a trusted package.

    Imported names (`ddpm.config.build.os.system`) and methods are refused.
    """
    if not isinstance(target, str) or not DOTTED.fullmatch(target):
        return False
    parts = PARTS if target.startswith("ddpm.") else tuple(f"{name}." for name in trusted_packages())
    if not target.startswith(parts):
        return False
    module, _, name = target.rpartition(".")
    if target.startswith("ddpm."):
        return name in definitions(module)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return False
    while isinstance(found, functools.partial):
        found = found.func
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        return False
    return f"{found.__module__}.".startswith(parts) and "." not in found.__qualname__
