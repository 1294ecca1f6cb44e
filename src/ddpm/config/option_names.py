"""The option that a part of a configuration was chosen by: `v` for the class `V`, `unet_tiny` for a `UNet`."""

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from ddpm.base.nested import flatten
from ddpm.base.program import CONF
from ddpm.checkpoint import groups

TARGET = "_target_"
PART = re.compile(r"([A-Za-z_][\w.]*)\((.*)\)", re.DOTALL)


@functools.cache
def options() -> dict[str, dict[str, dict[str, Any]]]:
    """Last word of a target -> option of a stored group in conf/ -> its flat fields."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for group in groups.group_names(stored=True):
        for path in sorted((CONF / group).glob("[!_]*.yaml")):
            fields = option_fields(group, path.stem)
            if TARGET in fields:
                found.setdefault(last_word(fields[TARGET]), {}).setdefault(path.stem, fields)
    return found


def option_fields(group: str, option: str) -> dict[str, Any]:
    """The flat fields of an option, with those of the options of its own group that it is based on."""
    own = yaml.safe_load((CONF / group / f"{option}.yaml").read_text()) or {}
    bases = [base for base in own.pop("defaults", ()) if isinstance(base, str) and base != "_self_"]
    fields: dict[str, Any] = {}
    for base in bases:
        fields |= option_fields(group, base)
    return fields | flatten(own)


def option_of(part: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The option that a part comes from, and the fields in which the part differs from it. part: its fields, flat.

    Of several options with its target, the one that has most fields in common with it. A part of another program is
    named by the last word of its target.
    """
    name = last_word(part[TARGET])
    known = options().get(name, {"": {}})
    changed = {option: changed_fields(part, fields) for option, fields in known.items()}
    best = min(known, key=lambda option: len(changed[option]))
    return best or name, changed[best]


def changed_fields(part: Mapping[str, Any], option: Mapping[str, Any]) -> list[str]:
    """Fields of the part with another value than in the option. References of either are equal to everything."""
    pairs = {field: (str(value), str(option.get(field))) for field, value in part.items() if not field.endswith("_")}
    return [field for field, (one, other) in pairs.items() if one != other and "${" not in one + other]


def parse_part(text: str) -> dict[str, str] | None:
    """The fields of a part from its text in a result, as `DDIM(eta=0.0)`; None for any other text."""
    found = PART.fullmatch(text)
    if not found:
        return None
    fields = (item.partition("=") for item in split_outside_brackets(found[2]))
    return {TARGET: found[1]} | {name.strip(): value for name, _, value in fields}


def split_outside_brackets(text: str) -> Iterator[str]:
    """The items of a list that is separated by commas."""
    depth, start = 0, 0
    for place, letter in enumerate(f"{text},"):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            if item := text[start:place].strip():
                yield item
            start = place + 1


def name_option(text: Any) -> str:
    """The text of a part in a result in words of the command line: "static" for "StaticThresholding()". It contains the
    fields that differ from the option, and inner parts."""
    part = parse_part(str(text))
    if part is None:
        return str(text)
    name, changed = option_of(part)
    shown = ", ".join(f"{key}={name_option(v)}" for key, v in part.items() if key in changed or PART.fullmatch(v))
    return f"{name}({shown})" if shown else name


def last_word(target: Any) -> str:
    return str(target).rpartition(".")[2]
