"""Arguments on the command line: a field of a sweep belongs to each job's option, and any path can be quoted."""

import subprocess
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf

from ddpm.commands.config_errors import config_error
from ddpm.commands.short_forms import expand_short_forms
from ddpm.commands.values import check_values
from ddpm.config.compose import compose
from ddpm.runs.arguments import flags_first, jobs, quote, split_arguments

CONF = Path(__file__).resolve().parents[1] / "conf"
SWEEPS = [
    ("train", ["schedule=linear,quadratic", "schedule.beta_end=0.01"], "schedule.beta_end"),
    ("train", ["experiment=mnist,mnist14", "sampler=heun,euler", "sampler.churn=0.1"], "sampler.churn"),
    ("train", ["experiment=ddpm_cifar10,iddpm_cifar10", "data.source.root=there"], "data.source.root"),
    ("sample", ["ckpt=x", "sampler=heun,euler", "sampler.churn=0.1", "sampler.steps=3"], "sampler.churn"),
]


def expanded(name, words):
    return split_arguments(expand_short_forms(["-m", *words], CONF, name))[1]


def compose_as_hydra(name, words):
    """Hydra composes the default options with the overrides that are no sweep, and then each job."""
    parsed = OverridesParser.create().parse_overrides(words)
    compose(CONF, name, [each.input_line for each in parsed if not each.is_sweep_override()])
    return [compose(CONF, name, job) for job in jobs(words)]


@pytest.mark.parametrize(("name", "words", "field"), SWEEPS, ids=lambda value: str(value)[:40])
def test_a_field_of_a_swept_option_is_set_in_each_job(name, words, field):
    made = compose_as_hydra(name, expanded(name, words))
    assert len(made) == 2 ** sum("," in word for word in words)
    group, _, rest = field.partition(".")
    wanted = dict(word.split("=") for word in words)[field]
    values = [each[group] for each in made]
    for key in rest.split("."):
        values = [value[key] for value in values]
    assert {str(value) for value in values} == {wanted}


def refusal(*words):
    """The error message for arguments of train.py."""
    with pytest.raises(HydraException) as caught:
        compose_as_hydra("train", expanded("train", list(words)))
    return config_error(caught.value, CONF, "train", expanded("train", list(words)))


def test_a_field_that_one_option_lacks_is_named_with_that_option():
    message = refusal("schedule=linear,cosine", "schedule.beta_end=0.01")
    assert message.startswith(
        "there is no 'schedule.beta_end' to set with schedule=cosine; it is a field of schedule=linear"
    )


def test_a_plus_before_a_field_that_exists_is_to_be_left_out_and_then_accepted():
    message = refusal("schedule=linear,quadratic", "+schedule.beta_end=0.01")
    assert message.endswith("set it without +, as schedule.beta_end=0.01")
    assert compose_as_hydra("train", expanded("train", ["schedule=linear,quadratic", message.rpartition(" as ")[2]]))


def test_fields_that_the_default_options_have_stay_as_typed():
    words = ["experiment=mnist,mnist14", "data.batch_size=8", "hydra.sweep.dir=there", "seed=3"]
    assert expanded("train", words) == words


def test_the_jobs_of_a_pattern_of_options_are_those_of_its_options():
    assert list(jobs(["objective=glob(*,exclude=x*)", "seed=1"])) == [
        [f"objective={option}", "seed=1"] for option in ("eps", "logit", "v")
    ]


def test_the_field_that_was_typed_with_a_plus_is_shown_with_its_value():
    words = ["data.batch_size=16", "+data.batch_size=4"]
    with pytest.raises(HydraException) as caught:
        compose(CONF, "train", words)
    assert config_error(caught.value, CONF, "train", words).endswith("without +, as data.batch_size=4")


HARD_PATHS = [
    *("d/a=b.ckpt", "d/[a] b/l.ckpt", "d/#1.ckpt", "d/it's.ckpt", 'd/"q".ckpt', "d/a,b.ckpt", "d/é ü/x.ckpt", "[a]"),
    *("d/$HOME.ckpt", "d/`ls`.ckpt", "d/a!b.ckpt", "d/(1).ckpt", "d/{a}.ckpt", "d/x;y&z.ckpt", '"d/a=b', "'d/x"),
    *("d/back\\slash'.ckpt", "d/a\\\\'b=c", "d/${x}/=", "d/end=\\", "d/日本,1"),
]


@pytest.mark.parametrize("path", HARD_PATHS)
@pytest.mark.parametrize("field", ["ckpt", "+data.source.root"])
def test_any_path_is_shown_with_quotes_that_bash_and_hydra_read(path, field, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("[a]").mkdir()
    shown = quote(f"{field}={path}", shell=True)
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {shown}"], capture_output=True, text=True, check=True)
    word, end = done.stdout.split("\0")
    override = OverridesParser.create().parse_override(word)
    assert end == ""
    assert override.get_key_element() == field
    assert OmegaConf.create({"value": override.value()}).value == path


@pytest.mark.parametrize("typed", ["ckpt=d/a=b.ckpt", "run_dir=d/[a]/#1", "ckpt=d/é", "ckpt=d/a,b"])
def test_a_value_that_hydra_cannot_parse_is_shown_as_the_argument_that_was_typed(typed):
    with pytest.raises(HydraException) as caught:
        compose(CONF, "sample", expand_short_forms([typed], CONF, "sample"))
    message = config_error(caught.value, CONF, "sample", typed=[typed])
    field, _, value = typed.partition("=")
    assert message.endswith(f"""write "{field}='{value}'\"""")


def test_a_value_that_the_shell_split_is_shown_whole():
    with pytest.raises(OverrideParseException) as caught:
        compose(CONF, "sample", ["ckpt=my", "run/last.ckpt"])
    message = config_error(caught.value, CONF, "sample", typed=["ckpt=my", "run/last.ckpt"])
    assert message.endswith(
        """got 'run/last.ckpt'; if it is part of a value with a space, write "ckpt='my run/last.ckpt'\""""
    )


def test_the_elements_of_a_list_are_quoted_one_by_one():
    with pytest.raises(OverrideParseException) as caught:
        compose(CONF, "sample", ["class=[é,b c]"])
    shown = config_error(caught.value, CONF, "sample", typed=["class=[é,b c]"]).rpartition(" write ")[2]
    assert OverridesParser.create().parse_override(shown.strip('"')).value() == ["é", "b c"]


@pytest.mark.parametrize("value", ["abc", "1.5", "null", str(2**64), "-1"])
def test_a_wrong_seed_is_named_as_it_is_typed(config, value):
    with pytest.raises(ValueError, match=r"^seed must be an integer in 0\.\.9223372036854775807, got "):
        check_values(config("train", f"seed={value}"))


def test_an_option_of_hydra_may_stand_between_overrides():
    typed = ["data=digits", "-m", "seed=1,2", "--config-dir", "mine", "name=x"]
    words = ["-m", "--config-dir", "mine", "data=digits", "seed=1,2", "name=x"]
    assert flags_first(typed) == words
    assert expand_short_forms(typed, CONF, "train")[:3] == words[:3]
    assert get_args_parser().parse_args(words).overrides == words[3:]
