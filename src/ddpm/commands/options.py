"""The groups, options and fields that the configuration of a command has, and its help text."""

import re
import shutil
import textwrap
from itertools import accumulate
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from ddpm.base.nested import flatten
from ddpm.config.compose import compose


def groups_of(conf: Path, name: str) -> list[str]:
    return re.findall(r"^  - (?:optional )?(\w+):", (conf / f"{name}.yaml").read_text(), re.MULTILINE)


def options_of(conf: Path, group: str) -> list[str]:
    return sorted(path.stem for path in (conf / group).glob("[!_]*.yaml"))


def first_comment(path: Path) -> str:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    return lines[0].removeprefix("# ") if lines and lines[0].startswith("# ") else ""


def help_text(conf: Path, name: str) -> str:
    """One line per option of each group, then one line per field that is in no group."""
    lines = [first_comment(conf / f"{name}.yaml"), "", "Groups, chosen as GROUP=OPTION:"]
    for group in groups_of(conf, name):
        for option in options_of(conf, group):
            lines.append(f"  {group}={option}".ljust(36) + first_comment(conf / group / f"{option}.yaml"))
    lines += ["", "Fields, set as FIELD=VALUE, in groups as GROUP.FIELD=VALUE (--cfg job --resolve prints all fields):"]
    parent = ""
    for line in (conf / f"{name}.yaml").read_text().splitlines():
        parent = line.partition(":")[0] if re.match(r"\w+:", line) else parent
        if re.match(r"(  )?[a-z]\w*:", line) and parent not in ("defaults", "hydra", "run_dir"):
            field, _, comment = line.strip().replace(": ???", "=VALUE").partition("  # ")
            lines.append(f"  {parent}.{field}".replace(f"{parent}.{parent}", parent).ljust(36) + comment)
    lines += ["", "Sweep over options: -m GROUP=OPTION,OPTION. Let a checkpoint use your own package: trust=[PACKAGE]."]
    width = max(shutil.get_terminal_size((10000, 0)).columns, 80)
    return "\n".join(textwrap.fill(line, width, subsequent_indent=" " * 36) for line in lines)


def known_keys(conf: Path, name: str, words: list[str]) -> list[str]:
    """All groups and all dotted fields, with the selected options; last those that refer to another field."""
    fields = flatten(OmegaConf.to_container(compose(conf, name, chosen_options(words, conf, name)), resolve=False))
    fields = sorted(fields, key=lambda field: "${" in str(fields[field]))
    return [*groups_of(conf, name), *(key for field in fields for key in accumulate(field.split("."), "{}.{}".format))]


def chosen_options(words: list[str], conf: Path, name: str) -> list[str]:
    """The words that choose an existing option of a group."""
    choices = [word for word in words if re.fullmatch(rf"({'|'.join(groups_of(conf, name))})=[\w-]+", word)]
    return [word for word in choices if word.partition("=")[2] in options_of(conf, word.partition("=")[0])]


def is_no_option(word: str, groups: list[str]) -> bool:
    """Whether a word gives a group a value that cannot be the name of an option, as model=null."""
    if word.partition("=")[0] not in groups:
        return False
    override = OverridesParser.create().parse_override(word)
    return not override.is_sweep_override() and not isinstance(override.value(), str | list)


def loose_groups(conf: Path, name: str) -> list[str]:
    """The groups that have no option unless one is chosen."""
    return re.findall(r"- (\w+): null", (conf / f"{name}.yaml").read_text())


def loose_fields(conf: Path, name: str) -> list[str]:
    """The fields that all options of such a group have."""
    found = []
    for group in loose_groups(conf, name):
        options = [set(OmegaConf.load(conf / group / f"{option}.yaml")) for option in options_of(conf, group)]
        found += [f"{group}.{field}" for field in sorted(set.intersection(*options)) if field.isalpha()]
    return found
