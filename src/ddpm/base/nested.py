"""Flattening of nested dictionaries."""

from collections.abc import Mapping
from typing import Any


def flatten(tree: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """`{"sampler": {"steps": 50}}` as `{"sampler.steps": 50}`. Lists are leaves; empty dictionaries are dropped."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}{separator}{key}": leaf for key, leaf in flatten(value, separator).items()}
        else:
            flat[name] = value
    return flat
