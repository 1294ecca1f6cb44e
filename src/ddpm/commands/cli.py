"""Shared by all commands: expansion of short forms, help texts, and one-line errors that suggest the nearest name."""

import os
import re
import sys
import warnings
from collections.abc import Callable, Set
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ddpm.base import check, exit_codes
from ddpm.base.memory import is_out_of_memory
from ddpm.base.nested import flatten
from ddpm.base.system_errors import describe
from ddpm.checkpoint.trust import take_trust
from ddpm.checkpoint.upgrade import earlier_word
from ddpm.commands.defaults import explain_default, following_options, refuse_other_kinds
from ddpm.commands.former_options import FORMER_OPTIONS
from ddpm.commands.suggestions import nearest, suggestion
from ddpm.config.compose import compose
from ddpm.config.wiring import name_source
from ddpm.runs import launch
from ddpm.runs.arguments import (
    as_typed,
    explain_quotes,
    flags_first,
    jobs,
    quote,
    set_in_each_job,
    split_arguments,
    unknown_flags,
)
from ddpm.runs.console import print_warning, say
from ddpm.runs.interruption import end_children, heed_signals
from ddpm.runs.run_folder import without_unused_folders

# Kept in a variable of its own, because HYDRA_FULL_ERROR is changed below and inherited by the processes of a run.
TRACEBACK = os.environ.setdefault("DDPM_TRACEBACK", os.environ.get("HYDRA_FULL_ERROR", "0")) == "1"
SCRIPTS = ("train", "sample", "evaluate")
USER_ERRORS = (ValueError, FloatingPointError, OSError, HydraException, OmegaConfBaseException)


@heed_signals()
@without_unused_folders()
def run_command(
    main: Callable[[], Any],
    conf: Path,
    name: str,
    prepare: Callable[[list[str], Path], list[str]] = lambda arguments, conf: arguments,
) -> None:
    """Run a Hydra main. Errors that a user can cause are printed without traceback, with their exit code.

    prepare: changes the command-line arguments before Hydra parses them.
    """
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text(conf, name))
        return
    typed = sys.argv[1:]
    warnings.formatwarning = print_warning
    launch.follow_parent()
    if "${" in str(Path.cwd()):
        exit_with_error(
            f"the path of the working directory must not contain ${{, which Hydra would interpolate: {Path.cwd()}"
        )
    if TRACEBACK:
        sys.argv[1:] = prepare(expand_short_forms(take_trust(typed), conf, name), conf)
        main()
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise errors instead of printing them and exiting
    try:
        sys.argv[1:] = prepare(expand_short_forms(take_trust(typed), conf, name), conf)
        main()
    except USER_ERRORS as error:
        is_config = isinstance(error, HydraException) or "Config group override" in str(error)  # model=null
        exit_with_error(config_error(error, conf, name, typed=typed) if is_config else describe(error, folder()), error)
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


def run_job(work: Callable[[DictConfig], None], config: DictConfig) -> None:
    """Call `work` with the configuration and end all child processes.

    Errors are caught here, so that Hydra does not report them a second time.
    """
    name, overrides = HydraConfig.get().job.config_name, list(HydraConfig.get().overrides.task)
    try:
        refuse_what_has_no_effect(config, overrides)
        refuse_other_kinds(config, name, overrides)
        if launch.is_first_process() and (line := first_line(config, name)):
            say(line)
        work(config)
        end_processes()
    except USER_ERRORS as error:
        if TRACEBACK:
            raise
        missing = isinstance(error, MissingMandatoryValue)
        message = f"{error.full_key} must be given, as {error.full_key}=VALUE" if missing else describe(error, folder())
        message = explain_default(config, overrides, name_source(config, message))
        exit_with_error(message, error)
    except (RuntimeError, MemoryError) as error:
        lost_worker = re.match(r"DataLoader worker .*", str(error))
        if TRACEBACK or not (lost_worker or is_out_of_memory(error)):
            raise
        if lost_worker:
            exit_with_error(
                f"a process that decodes images is gone ({lost_worker[0].rstrip(' .')}); the system's log states the "
                "cause, as too little memory for data.num_workers. A training continues with resume=auto",
                exit_codes.ProcessLost(),
            )
        reason = (str(error).splitlines() or ["an allocation failed"])[0]
        size = OmegaConf.select(config, "data.size") or "as stored"
        remedy = f"Use a smaller batch_size, or smaller images (data.size: {size})"
        exit_with_error(f"too little memory: {reason}. {remedy}", error)
    finally:
        end_children()


def first_line(config: DictConfig, name: str) -> str:
    """What a command is about to do, before anything is imported that takes seconds; "" if it has no subject."""
    about = [config.get("ckpt") or config.get("images")]
    if name == "train":
        experiment = HydraConfig.get().runtime.choices.get("experiment")
        about = [f"experiment={experiment} data={config.data.name}", f"in {config.run_dir}"]
    said = ", ".join(str(each) for each in about if each)
    return f"{name}: {said}; importing torch and Lightning" if said else ""


def refuse_what_has_no_effect(config: DictConfig, overrides: list[str]) -> None:
    """Raise ValueError for an override that no selected part uses."""
    if any(typed.startswith("resume.allow=") for typed in overrides) and config.resume.path is None:
        raise ValueError("resume.allow has no effect on a new run; choose a run to continue, for example resume=auto")
    readers = {
        "variance": ("sampler", "loss"),
        "timestep_spacing": ("sampler",),
        "weight": ("loss",),
        "error": ("loss",),
    }
    for typed in overrides:
        group, _, value = typed.partition("=")
        if value.startswith("[") and isinstance(config.get(group), DictConfig) and "_target_" in config[group]:
            raise ValueError(f"{typed}: {group} takes one option; {group}=A,B with -m runs a job with each")
    for group, parts in readers.items():
        typed = next((each for each in overrides if each.startswith(f"{group}=")), None)
        chosen = {part: config[part] for part in parts if config.get(part) and "_target_" in config[part]}
        if typed and chosen and not any(group in part for part in chosen.values()):
            names = " and ".join(f"the {part} {leaf['_target_'].rpartition('.')[2]}" for part, leaf in chosen.items())
            raise ValueError(f"{typed} has no effect, because {names} has no {group}; leave it out")
    words = {re.match(r"\+*(\w*)", word)[1]: word for word in overrides if not word.endswith("=none")}
    for group, why in (idle_groups(config, words.keys()) if "loss" in config else {}).items():
        if group in words:
            raise ValueError(f"{words[group]} has no effect, because {why}; leave it out")


def idle_groups(config: DictConfig, typed: Set[str]) -> dict[str, str]:
    """The groups among those typed that a training does not use, and why."""
    idle = {} if "_target_" in config.adversary else {"adversary_optimizer": "there is no adversary"}
    if not config.get("metric"):
        idle |= dict.fromkeys(("evaluate", "features", "features_batch_size"), "no metric is chosen, as metric=fid")
    of_samples = {"objective", "sampler", "clip", "guidance", "timestep_spacing"}
    if typed & of_samples and (what := getattr(get_object(config.model._target_), "no_samples", None)):
        idle |= dict.fromkeys(of_samples, f"{what.partition(',')[0]} generates no images")
    return idle


def refuse_dashes(arguments: list[str], conf: Path, name: str) -> None:
    """Raise ValueError with the form FIELD=VALUE for an option in another form, as --lr 1e-3, --lr=1e-3 or --fp16."""
    unknown = unknown_flags(arguments)
    if not unknown:
        return
    place = arguments.index(unknown[0])
    key, equals, value = unknown[0].lstrip("-").replace("-", "_").partition("=")
    follows = [word for word in arguments[place + 1 : place + 2] if not word.startswith("--") and "=" not in word]
    value = value if equals else (follows or ["VALUE"])[0]
    typed = " ".join([unknown[0], *(follows if not equals else [])])
    known = [*known_keys(conf, name, [word for word in arguments if "=" in word]), *loose_fields(conf, name)]
    key = key if key in known else nearest(key, known)
    form = f", as {key}={value}" if key else "; --help lists all"
    raise ValueError(f"{typed}: a setting is written FIELD=VALUE, without dashes{form}")


def refuse_earlier_words(arguments: list[str]) -> None:
    """Raise ValueError with the current name if an argument uses a former name of a group, field, option or value."""
    for argument in arguments:
        names = None if argument.startswith("-") else earlier_word(argument)
        if names and not re.fullmatch(r"\+*\w+=[\d.e+-]+", argument):  # a group takes no number
            raise ValueError(f"there is no {names[0]!r}; its current name is {names[1]!r}")


def refuse_removals(arguments: list[str], conf: Path, name: str) -> None:
    """Raise ValueError for ~FIELD, unless it removes one of several parts of their own, as ~callbacks.samples."""
    for argument in arguments:
        key = argument.removeprefix("~").partition("=")[0]
        if not argument.startswith("~") or key.startswith("hydra"):
            continue
        parent, _, last = key.rpartition(".")
        config = compose(conf, name, chosen_options(arguments, conf, name))
        parts = OmegaConf.to_container(config, resolve=False)
        for each in parent.split(".") if parent else ():
            parts = parts.get(each) if isinstance(parts, dict) else None
        if parent and isinstance(parts, dict) and last not in parts:
            raise ValueError(f"there is no {key!r} to remove{suggestion(key, known_keys(conf, name, arguments))}")
        if (
            not parent
            or not isinstance(parts, dict)
            or any(not isinstance(each, dict | None) for each in parts.values())
        ):
            raise ValueError(
                f"{argument}: {key} is always there and cannot be removed, as callbacks.samples can; set it to a value"
            )


def refuse_additions(arguments: list[str], conf: Path, name: str) -> None:
    """Raise ValueError for +FIELD outside of the groups, whose parts check their fields themselves."""
    for argument in arguments:
        key = argument.lstrip("+").partition("=")[0].rpartition("@")[2]
        in_a_group = re.split(r"[./]", key)[0] in (*groups_of(conf, name), "hydra")
        if argument.startswith("+") and not in_a_group and key not in (known := known_keys(conf, name, arguments)):
            raise ValueError(f"there is no {key!r} to set{suggestion(key, known)}")


def end_processes() -> None:
    """Close the process group that Lightning leaves open; its threads can abort a process at exit."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def folder() -> str:
    """The folder in which Hydra writes."""
    words = (word.partition("=") for word in sys.argv)
    return next(
        (folder for name, _, folder in words if re.fullmatch(r"hydra\.(run|sweep)\.dir", name)), str(Path.cwd())
    )


def exit_with_error(message: str, error: BaseException | None = None) -> NoReturn:
    """error: determines the exit code, and its notes are printed; None: a mistake in the command."""
    message = "\n".join([message, *getattr(error, "__notes__", ())])
    print(f"error: {message}\n(HYDRA_FULL_ERROR=1 shows the traceback)", file=sys.stderr)
    sys.exit(exit_codes.exit_code(error))


def expand_short_forms(arguments: list[str], conf: Path, name: str) -> list[str]:
    """Replace short forms of arguments by Hydra overrides.

    `run_dir=X` becomes hydra.run.dir=X, with -m hydra.sweep.dir=X. `resume=PATH` becomes resume.path=PATH. For train.py
    options are added that follow from others (`ddpm.commands.defaults`). For evaluate.py, `task=anomaly
    task.times=[250]` becomes metric=anomaly metric.anomaly.times=[250], and `anomalies=mvtec` becomes
    anomalies@metric.anomaly.anomalies=mvtec. `sampler.steps=50` without a selected sampler changes the sampler of the
    checkpoint; Hydra needs a + before such an override.
    """
    refuse_dashes(arguments, conf, name)
    refuse_earlier_words(arguments)
    refuse_removals(arguments, conf, name)
    refuse_additions(arguments, conf, name)
    arguments = flags_first(arguments)
    arguments = [argument for argument in arguments if argument != "ema=default"]  # the only option of a former group
    arguments = following_options(arguments) if name == "train" else arguments
    folder_field = "hydra.sweep.dir=" if split_arguments(arguments)[0].multirun else "hydra.run.dir="
    arguments = [re.sub(r"^run_dir=", folder_field, argument) for argument in arguments]
    arguments = [re.sub(r"^resume=", "resume.path=", argument) for argument in arguments]
    arguments = [re.sub(r"^resume\.path=(['\"]?)never\1$", "resume.path=null", argument) for argument in arguments]
    task = next((a.removeprefix("task=") for a in arguments if a.startswith("task=")), None)
    if name == "evaluate" and task:
        arguments = [re.sub(r"^task(?=[.=])", f"metric.{task}", a) for a in arguments]
        arguments = [re.sub(rf"^metric\.{re.escape(task)}=", "metric=", a) for a in arguments]
    if name == "evaluate":
        arguments = [re.sub(r"^anomalies=", "anomalies@metric.anomaly.anomalies=", a) for a in arguments]
        arguments = [re.sub(r"^anomalies\.", "metric.anomaly.anomalies.", a) for a in arguments]
    loose = loose_groups(conf, name)
    chosen = {argument.partition("=")[0].lstrip("+~") for argument in arguments}

    def is_loose(argument: str) -> bool:
        group = argument.partition("=")[0].partition(".")[0]
        return "." in argument.partition("=")[0] and group in loose and group not in chosen

    arguments = [f"+{argument}" if is_loose(argument) else argument for argument in arguments]
    return for_each_job(arguments, conf, name) if split_arguments(arguments)[0].multirun else arguments


def for_each_job(arguments: list[str], conf: Path, name: str) -> list[str]:
    """In a sweep over options, set a field that the default options do not have in each job only."""
    groups = groups_of(conf, name)
    swept = [word for word in arguments if re.match(rf"({'|'.join(groups)})=.*[,(]", word)]
    known = known_keys(conf, name, arguments) if swept else []

    def of_a_job(argument: str) -> bool:
        field = argument.partition("=")[0]
        return bool(swept) and bool(re.fullmatch(r"(?!hydra\.)\w+\.[\w.]+", field)) and field not in known

    return [set_in_each_job(argument) if of_a_job(argument) else argument for argument in arguments]


# Help


def first_comment(path: Path) -> str:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    return lines[0].removeprefix("# ") if lines and lines[0].startswith("# ") else ""


def groups_of(conf: Path, name: str) -> list[str]:
    return re.findall(r"^  - (?:optional )?(\w+):", (conf / f"{name}.yaml").read_text(), re.MULTILINE)


def options_of(conf: Path, group: str) -> list[str]:
    return sorted(path.stem for path in (conf / group).glob("[!_]*.yaml"))


def help_text(conf: Path, name: str) -> str:
    """One line per option of each group, then one line per top-level field."""
    lines = [first_comment(conf / f"{name}.yaml"), "", "Groups, chosen as GROUP=OPTION:"]
    for group in groups_of(conf, name):
        for option in options_of(conf, group):
            lines.append(f"  {group}={option}".ljust(36) + first_comment(conf / group / f"{option}.yaml"))
    lines += ["", "Fields, set as FIELD=VALUE, in groups as GROUP.FIELD=VALUE (--cfg job --resolve prints all fields):"]
    for line in (conf / f"{name}.yaml").read_text().splitlines():
        if re.match(r"\w+:", line) and not line.startswith(("defaults", "hydra", "run_dir")):
            field, _, comment = line.partition("  # ")
            lines.append(f"  {field}".ljust(36) + comment)
    lines += [
        "",
        "Sweep over options: -m GROUP=OPTION,OPTION. Let a checkpoint use your own package: trust=[PACKAGE].",
    ]
    return "\n".join(lines)


# Error messages


def config_error(
    error: Exception, conf: Path, name: str, words: list[str] | None = None, typed: list[str] | None = None
) -> str:
    """The message for an error of Hydra about an override, with the nearest existing name.

    words: the overrides, if they are not the command-line arguments. typed: the arguments before short forms were
    expanded.
    """
    if isinstance(error, OverrideParseException):
        return explain_quotes(error.override, typed or [], shell=words is None)
    words = split_arguments(sys.argv[1:])[1] if words is None else words
    chain = [error, *filter(None, [error.__cause__])]
    text = "\n".join(str(each) for each in chain)
    option = re.search(r"Could not find '(\w+)/([\w-]+)'", text)
    if option:
        group, wrong = option.groups()
        if now := FORMER_OPTIONS.get(f"{group}={wrong}"):
            return f"{group}={wrong} is now {now}"
        options = options_of(conf, group)
        return f"{group} must be one of {', '.join(options)}, got {wrong!r}{check.suggestion(wrong, options)}"
    if wrong := next((word for word in words if is_no_option(word, groups_of(conf, name))), None):
        group, _, value = wrong.partition("=")
        return f"{group} must be one of {', '.join(options_of(conf, group))}, got {value!r}"
    key = re.search(r"Could not override '([\w./@]+)'", text)
    if key:
        wrong = key.group(1)
        job = next((job for job in jobs(words) if wrong not in known_keys(conf, name, job)), words)
        swept = [word for word in job if word not in words and "=" in word and word.split("=")[0] != wrong]
        with_options = f" with {' '.join(swept)}" if swept else ""
        known = [*known_keys(conf, name, job), *loose_fields(conf, name)]
        word = next((word for word in words if word.startswith(f"{wrong}=")), wrong)
        named = as_typed(word, typed or []).partition("=")[0]
        return f"there is no {named!r} to set{with_options}{suggestion(wrong, known, other_command(named, conf, name))}"
    if merged := re.search(r"Error merging override ([\w.]+)=(.*)", text):
        known = OmegaConf.select(compose(conf, name, chosen_options(words, conf, name)), merged.group(1))
        kind = "a list" if isinstance(known, ListConfig) else "fields of their own"
        return f"{merged.group(1)} must be {kind}, got {merged.group(2)}"
    if added := re.search(r"An item is already at '([\w.]+)'", text):
        word = next((word for word in words if word.startswith(f"+{added.group(1)}=")), added.group(1))
        return f"{added.group(1)} is a field of the chosen option: set it without +, as {word.lstrip('+')}"
    if several := re.search(r"Ambiguous value for argument '(.*)'\n", text):
        word = as_typed(several.group(1), typed or [])
        quoted = quote(word, shell=True)
        return f"{word} has several values: add -m for one job of each, or for one text write {quoted}"
    return str(error)


def other_command(field: str, conf: Path, name: str) -> str:
    """The text "; schedule is a setting of train.py" for a field or group of other commands alone; or ""."""
    first = field.partition(".")[0]
    known = {each: [*groups_of(conf, each), *OmegaConf.load(conf / f"{each}.yaml")] for each in SCRIPTS}
    if first in known.get(name, ()):
        return ""
    commands = [f"{each}.py" for each in SCRIPTS if first in known[each]]
    return f"; {first} is a setting of {' and '.join(commands)}" if commands else ""


def is_no_option(word: str, groups: list[str]) -> bool:
    """Whether a word gives a group a value that cannot be the name of an option, as model=null."""
    if word.partition("=")[0] not in groups:
        return False
    override = OverridesParser.create().parse_override(word)
    return not override.is_sweep_override() and not isinstance(override.value(), str | list)


def known_keys(conf: Path, name: str, words: list[str]) -> list[str]:
    """All groups and all dotted fields, with the selected options; last those that refer to another field."""
    fields = flatten(OmegaConf.to_container(compose(conf, name, chosen_options(words, conf, name)), resolve=False))
    fields = sorted(fields, key=lambda field: "${" in str(fields[field]))
    return [*groups_of(conf, name), *(key for field in fields for key in accumulate(field.split("."), "{}.{}".format))]


def chosen_options(words: list[str], conf: Path, name: str) -> list[str]:
    """The words that choose an existing option of a group."""
    choices = [word for word in words if re.fullmatch(rf"({'|'.join(groups_of(conf, name))})=[\w-]+", word)]
    return [word for word in choices if word.partition("=")[2] in options_of(conf, word.partition("=")[0])]


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
