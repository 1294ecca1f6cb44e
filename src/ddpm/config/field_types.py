"""Check the values of a configuration against the annotations of the constructors that receive them."""

import inspect
import math
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from ddpm.base import check

WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
PLURALS = {int: "integers", float: "numbers", str: "texts"}


def check_types(config: Any, key: str, given: Collection[str] = ()) -> None:
    """Raise ValueError for the first field of a part, or of a part in it, that has another type than its annotation.

    given: fields that get other values.
    """
    if not isinstance(config, DictConfig) or config._is_none():
        return
    target = None if OmegaConf.is_missing(config, "_target_") else config.get("_target_")
    hints = annotations(get_object(target)) if isinstance(target, str) else {}
    for name in config:
        node = config._get_node(name)._maybe_dereference_node(throw_on_resolution_failure=False)
        if node is None or node._is_missing():
            continue
        if name in hints and name not in given:
            check_type(f"{key}.{name}", node if OmegaConf.is_config(node) else node._value(), hints[name])
        check_types(node, f"{key}.{name}")


def annotations(made: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of the arguments of a class or function."""
    made = made.func if isinstance(made, partial) else made
    return get_type_hints(made.__init__ if inspect.isclass(made) else made, include_extras=True)


def check_type(field: str, value: Any, hint: Any) -> None:
    plain = OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value
    if not fits(plain, hint):
        is_word = str in alternatives(hint) and isinstance(plain, bool | int | float)
        check.fail(field, plain, describe(hint) + (f", with quotes: \"{field}='{plain}'\"" if is_word else ""))


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of a union; of another type, itself. Ranges in annotations are left to the constructors."""
    each = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return tuple(h.__origin__ if get_origin(h) is Annotated and h is not check.Limit else h for h in each)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value of a configuration may be an argument of this type. Parts and references always may."""
    if hint is Any or (isinstance(value, str) and "${" in value) or (isinstance(value, dict) and "_target_" in value):
        return True
    hint, *others = alternatives(hint)
    if others:
        return any(fits(value, each) for each in (hint, *others))
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is Literal:
        return value in inner
    if hint is check.Limit:
        return fits(value, float) or value == math.inf
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind in (int, bool, str, Path, type(None)):
        return isinstance(value, str if kind is Path else kind) and isinstance(value, bool) == (kind is bool)
    if is_kind(kind, Sequence):
        return isinstance(value, list) and all(fits(each, inner[0]) for each in (value if inner else ()))
    return isinstance(value, dict) and is_kind(kind, Mapping)


def is_kind(kind: Any, of: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, of) and kind is not str


def describe(hint: Any) -> str:
    """ "an integer or null"."""
    return " or ".join("null" if each is type(None) else name_of(each) for each in alternatives(hint))


def name_of(hint: Any) -> str:
    if hint is check.Limit:
        return "a number, or .inf"
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if is_kind(kind, Sequence):
        return "a list of " + PLURALS.get(alternatives(inner[0])[0], "values") if inner else "a list"
    return WORDS.get(kind, "a mapping" if kind is Mapping else f"a part (_target_: {getattr(kind, '__name__', kind)})")
