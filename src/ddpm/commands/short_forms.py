"""The arguments of a command: short forms are replaced by overrides of Hydra, and misunderstandings refused."""

import re
from pathlib import Path

from omegaconf import OmegaConf

from ddpm.checkpoint.upgrade import earlier_word
from ddpm.commands.defaults import following_options
from ddpm.commands.options import chosen_options, groups_of, known_keys, loose_fields, loose_groups
from ddpm.commands.suggestions import nearest, suggestion
from ddpm.config.compose import compose
from ddpm.runs.arguments import flags_first, set_in_each_job, split_arguments, unknown_flags


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
    refuse_one_value_for_several(arguments, conf, name)
    task = next((a.removeprefix("task=") for a in arguments if a.startswith("task=")), None)
    of_metric = (conf / "metric" / f"{task}.yaml").exists() or not (conf / "task" / f"{task}.yaml").exists()
    if name == "evaluate" and task and of_metric:
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


def refuse_one_value_for_several(arguments: list[str], conf: Path, name: str) -> None:
    """Raise ValueError for a value in the place of fields, as ema=0.999."""
    fields = OmegaConf.to_container(OmegaConf.load(conf / f"{name}.yaml"), resolve=False)
    for key, _, value in (argument.lstrip("+").partition("=") for argument in arguments):
        if isinstance(fields.get(key), dict) and not value.startswith("{"):
            names = ", ".join(f"{key}.{field}" for field in fields[key] if not field.startswith("_"))
            raise ValueError(f"{key} has fields of its own, {names}: set these, got {key}={value}")


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
