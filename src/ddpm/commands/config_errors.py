"""One line for an error of Hydra about an override, with the nearest existing name."""

import re
import sys
from pathlib import Path

from hydra.errors import OverrideParseException
from omegaconf import ListConfig, OmegaConf

from ddpm.base.nested import flatten
from ddpm.base.program import SCRIPTS
from ddpm.commands.former_options import FORMER_OPTIONS
from ddpm.commands.options import chosen_options, groups_of, is_no_option, known_keys, loose_fields, options_of
from ddpm.commands.suggestions import option_suggestion, suggestion
from ddpm.config.compose import compose
from ddpm.runs.arguments import as_typed, explain_quotes, jobs, quote, split_arguments


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
    option = re.search(r"Could not find '(\w+)/([^']+)'", text)
    if option:
        group, wrong = option.groups()
        if now := FORMER_OPTIONS.get(f"{group}={wrong}"):
            return f"{group}={wrong} is now {now}"
        options = options_of(conf, group)
        return f"{group} must be one of {', '.join(options)}, got {wrong!r}{option_suggestion(wrong, options)}"
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
        field, _, value = word.partition("=")
        listed, text = quote(f"{field}=[{value}]", shell=True), quote(word, shell=True)
        remedy = f"write {listed} for a list, add -m for one job of each, or for one text write {text}"
        return f"{word} has several values: {remedy}"
    return str(error)


def other_command(field: str, conf: Path, name: str) -> str:
    """The text "; schedule is a setting of train.py" for a field or group of other commands or tasks alone; or ""."""
    first = field.partition(".")[0]
    known = {each: [*groups_of(conf, each), *OmegaConf.load(conf / f"{each}.yaml")] for each in (*SCRIPTS, name)}
    if first in known[name]:
        leaves = {option: OmegaConf.load(conf / first / f"{option}.yaml") for option in options_of(conf, first)}
        fields = {option: flatten(OmegaConf.to_container(leaf, resolve=False)) for option, leaf in leaves.items()}
        owners = [each for each in fields if any(f"{first}.{key}.".startswith(f"{field}.") for key in fields[each])]
        return f"; it is a field of {first}={', '.join(owners)}" if owners else ""
    if name == "sample" and first in OmegaConf.load(conf / "task" / "generate.yaml"):
        return "; it is one of task=generate"
    commands = [f"{each}.py" for each in SCRIPTS if first in known[each]]
    return f"; {first} is a setting of {' and '.join(commands)}" if commands else ""
