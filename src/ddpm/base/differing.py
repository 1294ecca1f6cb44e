"""What flat dictionaries differ in."""

from collections.abc import Mapping
from typing import Any


def differing(*mappings: Mapping[str, Any], absent: Any = None) -> dict[str, tuple[Any, ...]]:
    """The values of each name that are not all the same, with `absent` where a mapping has none of the name."""
    names = dict.fromkeys(name for each in mappings for name in each)
    values = {name: tuple(each.get(name, absent) for each in mappings) for name in names}
    return {name: each for name, each in values.items() if any(other != each[0] for other in each[1:])}
