"""Differences between flat dictionaries."""

from collections.abc import Mapping
from typing import Any


def differing(*mappings: Mapping[str, Any], absent: Any = None) -> dict[str, tuple[Any, ...]]:
    """The names whose values are not all equal, with one value per mapping; `absent` stands for a missing name."""
    names = dict.fromkeys(name for each in mappings for name in each)
    values = {name: tuple(each.get(name, absent) for each in mappings) for name in names}
    return {name: each for name, each in values.items() if any(other != each[0] for other in each[1:])}
