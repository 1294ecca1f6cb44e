"""Command-line arguments for Hydra: the jobs of a sweep, and how to quote a value that Hydra cannot parse."""

import re
import shlex
from argparse import Namespace
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser

from ddpm.base import check
from ddpm.base.program import CONF


def parse_flags(arguments: list[str]) -> tuple[Namespace, list[str]]:
    """What Hydra's parser finds, and the words that it does not know. Raises ValueError for a wrong flag of Hydra."""
    parser, written = get_args_parser(), "written FIELD=VALUE, without dashes"
    parser.error = lambda text: check.fail("a setting", " ".join(arguments), f"{written} ({text}; --help lists all)")
    return parser.parse_known_args(arguments)


def split_arguments(arguments: list[str]) -> tuple[Namespace, list[str]]:
    """Hydra's options, as -m and --config-dir PATH, and the overrides."""
    flags, rest = parse_flags(arguments)
    return flags, [*flags.overrides, *(word for word in rest if not word.startswith("-"))]


def flags_first(arguments: list[str]) -> list[str]:
    """Hydra's options, then the overrides: its parser refuses overrides on both sides of one, as in a=1 -m b=2."""
    _, words = split_arguments(arguments)
    flags = [*arguments]
    for word in words:
        flags.remove(word)
    return [*flags, *words]


def unknown_flags(arguments: list[str]) -> list[str]:
    """Words with dashes that Hydra does not know."""
    return [word for word in parse_flags(arguments)[1] if re.match("--?[A-Za-z]", word)]


def jobs(overrides: list[str]) -> Iterator[list[str]]:
    """The overrides of each job of a sweep; of a command without a sweep, its own."""
    options = ConfigLoaderImpl(create_config_search_path(f"file://{CONF}"))  # for schedule=glob(*)
    parsed = OverridesParser.create(options).parse_overrides(overrides)
    values = [
        [f"{each.get_key_element()}={value}" for value in each.sweep_string_iterator()]
        if each.is_choice_sweep() or each.is_range_sweep()
        else [each.input_line]
        for each in parsed
    ]
    for job in product(*values):
        yield [str(word) for word in job]


def set_in_each_job(argument: str) -> str:
    """The override as a sweep over its one value. Hydra applies it to each job and not to the default options."""
    field, _, value = argument.partition("=")
    return f"{field}=choice({value})" if value and not value.startswith(("choice(", "range(")) else argument


def as_typed(argument: str, typed: list[str]) -> str:
    """The argument before short forms were expanded, by its value."""
    if argument in typed:
        return argument
    return next((word for word in typed if word.partition("=")[1:] == argument.partition("=")[1:]), argument)


def explain_quotes(argument: str, typed: list[str], shell: bool) -> str:
    """The error message for an argument that Hydra cannot parse. shell: quote for a shell too.

    typed: the arguments before short forms were expanded.
    """
    argument = as_typed(argument, typed)
    field, equals, _ = argument.partition("=")
    if not equals or not re.fullmatch(r"[+~]*[\w./@]+", field):
        place = typed.index(argument) if argument in typed else 0
        whole = " ".join(typed[place - 1 : place + 1]) if place and "=" in typed[place - 1] else ""
        hint = f"; if it is part of a value with a space, write {quote(whole, shell)}" if whole else ""
        return f"an argument must be FIELD=VALUE or GROUP=OPTION, got {argument!r}{hint}"
    quoted = quote(argument, shell)
    return f"the value of {field} must have closed brackets and quotes; for a text as it is, write {quoted}"


def quote(argument: str, shell: bool) -> str:
    """The argument with quotes around its value, or around each element of a list."""
    field, _, value = argument.partition("=")
    value = str(Path(value).expanduser()) if value.startswith("~/") else value
    if value.startswith("[") and value.endswith("]") and not Path(value).exists():
        elements = [quote_for_hydra(each.strip().strip("'\"")) for each in value[1:-1].split(",")]
        word = f"{field}=[{','.join(elements)}]"
    else:
        word = f"{field}={quote_for_hydra(value)}"
    if not shell:
        return word
    return shlex.quote(word) if re.search(r"[$`\"!]|\\\\", word) else f'"{word}"'


def quote_for_hydra(text: str) -> str:
    """Quote a text for an override of Hydra."""
    if re.fullmatch(r"[\w/.:-]+", text, re.ASCII):
        return text
    escaped = re.sub(r"(\\*)('|\$\{)", r"\1\1\\\2", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"
