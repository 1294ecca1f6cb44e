"""Packages of one's own whose classes and functions a stored configuration may name.

Said by `trust=[mynet]` on any command, by DDPM_TRUST=mynet, by a line `trust: [mynet]` in ~/.config/ddpm/config.yaml,
or by an installed package that announces modules under the entry point `ddpm.parts`. Nothing that is stored makes
anybody trust anything.
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
    """The arguments without `trust=...`, which holds from here on in this process and in those that it starts."""
    for argument in arguments:
        if argument.startswith("trust="):
            words = argument.removeprefix("trust=").strip("[]").split(",")
            named = checked_names("trust", [word.strip(" '\"") for word in words])
            os.environ[VARIABLE] = ",".join(dict.fromkeys([*from_environment(), *named]))
    return [argument for argument in arguments if not argument.startswith("trust=")]


def trusted_packages() -> tuple[str, ...]:
    """Modules and packages, as `mynet` or `mynet.parts`."""
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
        check.fail(str(user_file()), settings, "one line, as trust: [mynet]")
    return checked_names(f"trust in {user_file()}", named)


def checked_names(where: str, names: Iterable[object]) -> list[str]:
    """ValueError for what is no package, or one of everybody's: its functions write files and start programs."""
    names = list(names)
    for name in names:
        is_name = isinstance(name, str) and all(part.isidentifier() for part in name.split("."))
        if not is_name or name.split(".")[0] in {"ddpm", "torch", *sys.stdlib_module_names}:
            check.fail(where, name, "packages of your own, as [mynet]")
    return names


def trust_hint(target: object) -> str:
    """What to type if the code that a stored configuration names is one's own."""
    package = target.partition(".")[0] if isinstance(target, str) else ""
    try:
        checked_names("trust", [package])
    except ValueError:
        return ""
    if package in {name.partition(".")[0] for name in trusted_packages()}:
        return f"; {package} is trusted, but no such name is defined in what can be imported of it"
    return f"; if it is your own, add trust=[{package}]"
