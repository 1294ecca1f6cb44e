"""Parts are named by the options of conf/, in configurations and in results."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ddpm.base.nested import flatten
from ddpm.base.program import CONF
from ddpm.checkpoint import groups
from ddpm.config.option_names import TARGET, name_option, option_of, options
from ddpm.config.run_settings import subject_settings
from ddpm.generation.identity import describe_part


def all_options():
    return [(name, fields) for of_target in options().values() for name, fields in of_target.items()]


def test_every_option_of_a_stored_group_is_known_by_its_own_fields():
    known = {name for name, _ in all_options()}
    for group in groups.group_names(stored=True):
        for path in (CONF / group).glob("[!_]*.yaml"):
            assert path.stem in known or TARGET not in path.read_text(), path
    for name, fields in all_options():
        assert option_of(fields) == (name, [])


def test_composed_parts_are_named_by_what_was_chosen():
    chosen = {"schedule": "linear", "sampler": "unipc", "model": "ddpm_cifar10", "weight": "min_snr", "data": "digits"}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=[f"{group}={option}" for group, option in chosen.items()])
    for group, option in chosen.items():
        part = flatten(OmegaConf.to_container(config[group], resolve=True))
        assert option_of(part)[0] == option
        if group not in ("data", "sampler"):
            assert name_option(describe_part(OmegaConf.to_container(config[group], resolve=True))).startswith(option)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("StaticThresholding()", "static"),
        ("no_wrapper()", "none"),
        ("V()", "v"),
        ("DDIM(timestep_spacing=uniform, eta=0.5)", "ddim(eta=0.5)"),
        ("Ancestral(timestep_spacing=uniform, variance=FixedSmall())", "ancestral(variance=small)"),
        ("zero_terminal_snr(of=cosine(offset=0.1))", "zero_terminal_snr(of=cosine(offset=0.1))"),
        ("other.package.Mine(a=[1, 2], b=3)", "Mine(a=[1, 2], b=3)"),
        ("ema 0.999", "ema 0.999"),
        ("((", "(("),
    ],
)
def test_texts_of_results_in_words_of_the_command_line(text, name):
    assert name_option(text) == name


def test_the_subject_of_a_result_has_the_keys_of_a_configuration():
    subject = {
        "ckpt": "a",
        "steps": 20,
        "seed": 1,
        "weights_sha256": "ab",
        "sampler": "DDIM(eta=0.5)",
        "weights": "raw",
    }
    assert subject_settings(subject) == {
        "sampler.steps": 20,
        "sampling_seed": 1,
        "sampler._target_": "DDIM",
        "sampler.eta": "0.5",
        "weights": "raw",
    }
