"""Trusted packages: other packages whose classes and functions a stored configuration may name.

A package is trusted by `trust=[mynet]` on any command, by DDPM_TRUST=mynet, by the line `trust: [mynet]` in
~/.config/ddpm/config.yaml, or by the entry point `ddpm.parts` of an installed package, which lists its modules. A
stored file cannot add trust.
"""

import os
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

from ddpm.base import check
from ddpm.base.untrusted import yaml_file

VARIABLE = "DDPM_TRUST"


def take_trust(arguments: list[str]) -> list[str]:
    """The arguments without `trust=...`, which then applies to this process and its child processes."""
    for argument in arguments:
        if argument.startswith("trust="):
            words = argument.removeprefix("trust=").strip("[]").split(",")
            named = checked_names("trust", [word.strip(" '\"") for word in words])
            os.environ[VARIABLE] = ",".join(dict.fromkeys([*from_environment(), *named]))
    return [argument for argument in arguments if not argument.startswith("trust=")]


def trusted_packages() -> tuple[str, ...]:
    """Names of trusted modules and packages, such as `mynet` or `mynet.parts`."""
    announced = (entry.module for entry in entry_points(group="ddpm.parts"))
    return (*from_environment(), *from_user_file(), *announced)


def from_environment() -> list[str]:
    return checked_names(VARIABLE, filter(None, os.environ.get(VARIABLE, "").replace(" ", "").split(",")))


def user_file() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "ddpm" / "config.yaml"


def from_user_file() -> list[str]:
    if not user_file().is_file():
        return []
    settings = yaml_file(user_file()) or {}
    named = settings.get("trust") if isinstance(settings, dict) and settings.keys() == {"trust"} else None
    if not isinstance(named, list):
        check.fail(str(user_file()), settings, "one line such as trust: [mynet]")
    return checked_names(f"trust in {user_file()}", named)


def checked_names(where: str, names: Iterable[object]) -> list[str]:
    """The names as a list. Raises ValueError for ddpm, torch and the standard library, which can write files and start
    programs, and for names that are not identifiers."""
    names = list(names)
    for name in names:
        is_name = isinstance(name, str) and all(part.isidentifier() for part in name.split("."))
        if not is_name or name.split(".")[0] in {"ddpm", "torch", *sys.stdlib_module_names}:
            check.fail(where, name, "packages of your own, for example [mynet]")
    return names


def trust_hint(target: object) -> str:
    """The end of an error message about an untrusted target: how to trust its package, if that is possible."""
    package = target.partition(".")[0] if isinstance(target, str) else ""
    try:
        checked_names("trust", [package])
    except ValueError:
        return ""
    if package in {name.partition(".")[0] for name in trusted_packages()}:
        return f"; {package} is trusted, but it does not define this name, or cannot be imported"
    return f"; if it is your own code, add trust=[{package}]"
