"""What the commands share: help that lists the groups, and errors of one line with the nearest right name."""

import os
import re
import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ddpm.base import check
from ddpm.base.nested import flatten
from ddpm.checkpoint.trust import take_trust
from ddpm.checkpoint.upgrade import earlier_word
from ddpm.commands.former_options import FORMER_OPTIONS
from ddpm.config.compose import compose
from ddpm.runs import launch
from ddpm.runs.interruption import end_children, heed_signals

# Read once and handed on under a name of our own: processes that a run starts see the HYDRA_FULL_ERROR set below.
TRACEBACK = os.environ.setdefault("DDPM_TRACEBACK", os.environ.get("HYDRA_FULL_ERROR", "0")) == "1"
USER_ERRORS = (ValueError, FloatingPointError, OSError, HydraException, OmegaConfBaseException)


@heed_signals()
def run_command(
    main: Callable[[], Any],
    conf: Path,
    name: str,
    prepare: Callable[[list[str], Path], list[str]] = lambda arguments, conf: arguments,
) -> None:
    """Runs a Hydra main. An error that a user can cause is printed without traceback, and the exit code is 2.

    prepare: changes the arguments before Hydra sees them.
    """
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text(conf, name))
        return
    launch.follow_parent()
    if "${" in str(Path.cwd()):
        exit_with_error(
            f"the folder to work in must be one without ${{ in its name, which Hydra would replace: {Path.cwd()}"
        )
    if TRACEBACK:
        sys.argv[1:] = prepare(expand_short_forms(take_trust(sys.argv[1:]), conf, name), conf)
        main()
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises, instead of printing in its own way and leaving
    try:
        sys.argv[1:] = prepare(expand_short_forms(take_trust(sys.argv[1:]), conf, name), conf)
        main()
    except USER_ERRORS as error:
        exit_with_error(config_error(error, conf, name) if isinstance(error, HydraException) else str(error))
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


def run_job(work: Callable[[DictConfig], None], config: DictConfig) -> None:
    """What a Hydra main does with its configuration. Caught here, an error is not reported by Hydra as well. No process
    is left behind."""
    try:
        refuse_what_has_no_effect(config, list(HydraConfig.get().overrides.task))
        work(config)
        end_processes()
    except USER_ERRORS as error:
        if TRACEBACK:
            raise
        missing = isinstance(error, MissingMandatoryValue)
        exit_with_error(f"{error.full_key} must be given, as {error.full_key}=VALUE" if missing else str(error))
    finally:
        end_children()


def refuse_what_has_no_effect(config: DictConfig, overrides: list[str]) -> None:
    """A choice that nothing reads is a mistake of the one who typed it."""
    if any(typed.startswith("resume.allow=") for typed in overrides) and config.resume.path is None:
        raise ValueError("resume.allow has no effect on a new run; say which to go on with, as resume=auto")
    readers = {
        "variance": ("sampler", "loss"),
        "timestep_spacing": ("sampler",),
        "weight": ("loss",),
        "error": ("loss",),
    }
    for group, parts in readers.items():
        typed = next((each for each in overrides if each.startswith(f"{group}=")), None)
        chosen = {part: config[part] for part in parts if config.get(part) and "_target_" in config[part]}
        if typed and chosen and not any(group in part for part in chosen.values()):
            names = " and ".join(f"the {part} {leaf['_target_'].rpartition('.')[2]}" for part, leaf in chosen.items())
            raise ValueError(f"{typed} has no effect, since {names} has no {group}; leave it out")


def refuse_earlier_words(arguments: list[str]) -> None:
    """ValueError, with today's name, for a group, a field, an option or a value by its earlier name."""
    for argument in arguments:
        names = None if argument.startswith("-") else earlier_word(argument)
        if names:
            raise ValueError(f"there is no {names[0]!r}; it is called {names[1]!r} now")


def end_processes() -> None:
    """Lightning leaves its process group open, whose threads can abort a process that is about to end well."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def exit_with_error(message: str) -> NoReturn:
    print(f"error: {message}\n(HYDRA_FULL_ERROR=1 shows where it came from)", file=sys.stderr)
    sys.exit(2)


def expand_short_forms(arguments: list[str], conf: Path, name: str) -> list[str]:
    """Short ways of saying it: what is typed, as Hydra wants it.

    `run_dir=X` is hydra.run.dir=X, `resume=PATH` is resume.path=PATH, `task=anomaly task.times=[250]` of evaluate.py is
    metric=anomaly metric.anomaly.times=[250], `anomalies=mvtec` is anomalies@metric.anomaly.anomalies=mvtec, and
    `sampler.steps=50` changes the checkpoint's sampler where no sampler is chosen, for which Hydra wants a + before it.
    """
    refuse_earlier_words(arguments)
    arguments = [argument for argument in arguments if argument != "ema=default"]  # the only one that there was
    arguments = [re.sub(r"^run_dir=", "hydra.run.dir=", argument) for argument in arguments]
    arguments = [re.sub(r"^resume=", "resume.path=", argument) for argument in arguments]
    arguments = [re.sub(r"^resume\.path=(['\"]?)never\1$", "resume.path=null", argument) for argument in arguments]
    task = next((a.removeprefix("task=") for a in arguments if a.startswith("task=")), None)
    if name == "evaluate" and task:
        arguments = [re.sub(r"^task(?=[.=])", f"metric.{task}", a) for a in arguments]
        arguments = [re.sub(rf"^metric\.{re.escape(task)}=", "metric=", a) for a in arguments]
    if name == "evaluate":
        arguments = [re.sub(r"^anomalies=", "anomalies@metric.anomaly.anomalies=", a) for a in arguments]
        arguments = [re.sub(r"^anomalies\.", "metric.anomaly.anomalies.", a) for a in arguments]
    loose = set(re.findall(r"- (\w+): null", (conf / f"{name}.yaml").read_text()))
    chosen = {argument.partition("=")[0].lstrip("+~") for argument in arguments}

    def is_loose(argument: str) -> bool:
        group = argument.partition("=")[0].partition(".")[0]
        return "." in argument.partition("=")[0] and group in loose and group not in chosen

    return [f"+{argument}" if is_loose(argument) else argument for argument in arguments]


# Help


def first_comment(path: Path) -> str:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    return lines[0].removeprefix("# ") if lines and lines[0].startswith("# ") else ""


def groups_of(conf: Path, name: str) -> list[str]:
    return re.findall(r"^  - (?:optional )?(\w+):", (conf / f"{name}.yaml").read_text(), re.MULTILINE)


def options_of(conf: Path, group: str) -> list[str]:
    return sorted(path.stem for path in (conf / group).glob("[!_]*.yaml"))


def help_text(conf: Path, name: str) -> str:
    """Every group with its options, one line each, then the plain fields."""
    lines = [first_comment(conf / f"{name}.yaml"), "", "Groups, chosen as GROUP=OPTION:"]
    for group in groups_of(conf, name):
        for option in options_of(conf, group):
            lines.append(f"  {group}={option}".ljust(36) + first_comment(conf / group / f"{option}.yaml"))
    lines += ["", "Fields, set as NAME=VALUE (--cfg job shows all of them, --cfg job --resolve with their values):"]
    for line in (conf / f"{name}.yaml").read_text().splitlines():
        if re.match(r"\w+:", line) and not line.startswith(("defaults", "hydra", "run_dir")):
            field, _, comment = line.partition("  # ")
            lines.append(f"  {field}".ljust(36) + comment)
    lines += ["", "Several runs at once: -m GROUP=OPTION,OPTION. Code of your own in what is loaded: trust=[PACKAGE]."]
    return "\n".join(lines)


# Hints


def config_error(error: Exception, conf: Path, name: str, words: list[str] | None = None) -> str:
    """Hydra's complaint about an override, with the nearest name that exists. words: as typed, if not in a shell."""
    chain = [error, *filter(None, [error.__cause__])]
    text = "\n".join(str(each) for each in chain)
    option = re.search(r"Could not find '(\w+)/([\w-]+)'", text)
    if option:
        group, wrong = option.groups()
        if now := FORMER_OPTIONS.get(f"{group}={wrong}"):
            return f"{group}={wrong} is now {now}"
        options = options_of(conf, group)
        return f"{group} must be one of {', '.join(options)}, got {wrong!r}{check.suggestion(wrong, options)}"
    key = re.search(r"Could not override '([\w./@]+)'", text)
    if key:
        wrong = key.group(1)
        known = known_keys(conf, name, sys.argv[1:] if words is None else words)
        return f"there is no {wrong!r} to set{check.suggestion(wrong, known)}"
    return str(error)


def known_keys(conf: Path, name: str, words: list[str]) -> list[str]:
    """Every group and every dotted field, for the groups that were chosen."""
    groups = groups_of(conf, name)
    choices = [a for a in words if re.fullmatch(rf"({'|'.join(groups)})=[\w-]+", a)]
    choices = [a for a in choices if a.partition("=")[2] in options_of(conf, a.partition("=")[0])]
    fields = flatten(OmegaConf.to_container(compose(conf, name, choices), resolve=False))
    return [*groups, *(key for field in fields for key in accumulate(field.split("."), "{}.{}".format))]
