"""A configuration that came out of a file: plain values, references to itself, and targets among our own parts.

Hydra calls whatever `_target_` names, and OmegaConf's resolvers read the environment or build new nodes, so all of that
is looked for here, before either of them sees the file.
"""

import copy
import functools
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

from ddpm import check

MODEL_GROUPS = (
    *("schedule", "noise", "process", "objective", "timesteps", "weight", "distance", "loss"),
    *("variance", "grid", "sampler", "denoiser", "guidance", "codec", "cond", "model", "ema", "optimizer"),
)
"""What a model is made of."""

LATER_GROUPS: dict[str, dict[str, Any]] = {
    "noise": {"_target_": "ddpm.diffusion.noise.White"},
    "cond": {"_target_": "ddpm.diffusion.condition.NoCondition"},
    "guidance": {
        "_target_": "ddpm.diffusion.denoiser.plain", "_partial_": True, "order": ["guidance", "denoiser"],
    },
}  # fmt: skip
"""Groups that older configurations do not have, as they mean them."""

LATER_FIELDS: dict[str, dict[str, Any]] = {
    "ddpm.diffusion.gaussian.GaussianDiffusion": {"same_noise_back": True},
    "ddpm.diffusion.timesteps.Uniform": {"largest": None},
}
"""Fields of a part that older configurations do not have, as they mean them."""

PARTS = (
    *("ddpm.diffusion.", "ddpm.models.", "ddpm.data.", "ddpm.codec."),
    *("ddpm.training.averages.", "ddpm.training.optimizer."),
)
"""Where their code lies. Other code of this package writes files and starts runs, which no file may ask for."""

MAX_DEPTH = 20
MAX_VALUES = 10_000
MAX_LENGTH = 10_000  # of a text
DOTTED = re.compile(r"[a-z]\w*(\.[A-Za-z]\w*)+")
REFERENCE = re.compile(r"\$\{[\w.]+\}")


def checked(stored: Any, where: str) -> dict[str, Any]:
    """The configuration in containers of its own; ValueError names what it must not hold. where: the file."""
    if not isinstance(stored, dict):
        check.fail(f"the configuration in {where}", type(stored).__name__, "a mapping of groups")
    config = completed(plain({**copy.deepcopy(LATER_GROUPS), **stored}, "", iter(range(MAX_VALUES)), where))
    for target in targets(config):
        if not is_ours(target):
            raise ValueError(f"{where} asks for code that is not part of ddpm's models: {target!r}; it was not loaded")
    return config


def refuse_without_model(config: dict[str, Any], where: str) -> None:
    """ValueError unless every group is there that a model is built from."""
    for group in (*MODEL_GROUPS, "data", "trainer"):
        if not isinstance(config.get(group), dict) or (group in MODEL_GROUPS and "_target_" not in config[group]):
            raise ValueError(f"the configuration in {where} has no {group!r}, so no model can be built from it")


def plain(value: Any, key: str, values: Iterator[int], where: str, depth: int = 0) -> Any:
    """A copy of dicts, lists, tuples (as lists) and scalars. values: ends, as one list may be held many times."""
    if next(values, None) is None or depth > MAX_DEPTH:
        raise ValueError(f"the configuration in {where} is larger or deeper than any of ours: {key or 'at its top'}")
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str) or len(name) > 100:
                raise ValueError(f"the configuration in {where} has a field that is no name at {key or 'its top'}")
        return {name: plain(item, f"{key}.{name}".strip("."), values, where, depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{key}[{i}]", values, where, depth + 1) for i, item in enumerate(value)]
    if type(value) is str and len(value) <= MAX_LENGTH:
        if "${" in REFERENCE.sub("", value):
            raise ValueError(
                f"{where} asks for more than a reference to itself at {key}: {value!r}; an interpolation in a stored "
                "configuration may be ${field} or ${group.field} only"
            )
        return value
    if value is None or type(value) in (bool, float) or (type(value) is int and abs(value) < 2**63):
        return value
    raise ValueError(f"the configuration in {where} holds {type(value).__name__} at {key}, which is not a plain value")


def completed(config: Any) -> Any:
    """Plain containers with the fields that came later."""
    if isinstance(config, list):
        return [completed(item) for item in config]
    if not isinstance(config, dict):
        return config
    target = config.get("_target_")
    later = LATER_FIELDS.get(target, {}) if isinstance(target, str) else {}
    return {**later, **{name: completed(value) for name, value in config.items()}}


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
    """Whether a dotted name is MODULE.NAME of a function or class that one of our parts defines.

    A path through our code to somebody else's (`ddpm.build.os.system`) is none, nor is a method.
    """
    if not isinstance(target, str) or not target.startswith(PARTS) or not DOTTED.fullmatch(target):
        return False
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return False
    while isinstance(found, functools.partial):
        found = found.func
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        return False
    return f"{found.__module__}.".startswith(PARTS) and "." not in found.__qualname__
