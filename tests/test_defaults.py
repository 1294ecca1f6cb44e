"""Defaults that follow from what was typed, and what is said of those that do not fit."""

import re
import subprocess
import sys

import pytest
from omegaconf import OmegaConf
from PIL import Image
from small_runs import ROOT, configured

from ddpm.base.program import CONF
from ddpm.commands import train
from ddpm.commands.defaults import EXPERIMENTS, changes_of_defaults, explain_default, refuse_other_kinds
from ddpm.commands.short_forms import expand_short_forms
from ddpm.commands.values import check_values
from ddpm.config.sizing import network_for, steps_for
from ddpm.networks.unet import UNet


def expanded(*words):
    return expand_short_forms(list(words), CONF, "train")


# Options that follow


@pytest.mark.parametrize("name", [name for names in EXPERIMENTS.values() for name in names])
def test_data_that_are_no_digits_get_an_experiment_of_their_kind(name):
    (experiment,) = (experiment for experiment, names in EXPERIMENTS.items() if name in names)
    assert expanded(f"data={name}") == [f"experiment={experiment}", f"data={name}"]
    assert expanded(f"data={name}", "experiment=mnist") == [f"data={name}", "experiment=mnist"]


def test_every_data_set_has_an_experiment(config):
    """A new data set is in the table, or the network of the default experiment is one for it."""
    digits = {"mnist", "digits", "mnist64", "stacked_mnist", "mnist_captions"}
    named = {name for names in EXPERIMENTS.values() for name in names}
    assert {path.stem for path in (CONF / "data").glob("[!_]*.yaml")} == digits | named


def test_a_sweep_over_data_of_several_kinds_names_its_experiment():
    assert expanded("-m", "data=folder,npz")[0] == "experiment=images"
    with pytest.raises(ValueError, match=r"data=mnist,folder needs several experiments; choose one: experiment=NAME"):
        expanded("-m", "data=mnist,folder")


def test_another_condition_is_not_guided_unless_it_is_typed():
    assert expanded("cond=none") == ["guidance=none", "cond=none"]
    assert expanded("cond=low_res") == ["guidance=none", "cond=low_res"]
    assert expanded("cond=class") == ["cond=class"]
    assert expanded("cond=none", "guidance=classifier") == ["cond=none", "guidance=classifier"]


# Values that do not fit


def test_steps_of_the_sampler_that_nobody_typed_follow_the_schedule(config):
    usual = config("train").sampler.steps
    made = config("train", "schedule.num_timesteps=10")
    assert changes_of_defaults(made, ["schedule.num_timesteps=10"]) == [
        f"sampler.steps=10 instead of {usual}, because schedule.num_timesteps=10"
    ]
    check_values(made)
    typed = ["schedule.num_timesteps=10", "sampler.steps=100"]
    made = config("train", *typed)
    assert changes_of_defaults(made, typed) == []
    with pytest.raises(ValueError, match=r"sampler.steps must be an integer in 1..10, got 100$"):
        check_values(made)


def test_what_is_typed_within_a_field_is_not_of_the_experiment(config):
    words = ["experiment=images", "data=folder", "data.source.root=somewhere", "data.batch_size=4", "data.resize=box"]
    assert changes_of_defaults(config("train", *words), words) == []


UNBOUNDED = (
    "weight.offset=0.0 instead of 1.0, because with objective=eps the weight would be unbounded where only noise is "
    "left"
)
KEPT = "time_sampler=logit_normal: with the experiment's mean=0.6, std=1.2"


def test_a_field_of_an_option_that_was_replaced_is_left_out_and_named(config):
    words = ["experiment=mnist_class", "cond=none"]
    made = config("train", *words)
    changes = changes_of_defaults(made, words)
    assert changes == [
        "cond=none: without the experiment's dropout",
        "guidance=none, because the condition is not dropped in training",
    ]
    assert OmegaConf.to_container(made.cond) == {"_target_": "ddpm.diffusion.conditions.base.NoCondition"}
    again = ["experiment=mnist_class", "weight=p2", "optimizer=adam", "optimizer.lr=1e-4", "optimizer.min_lr=1e-5"]
    made = config("train", *again)
    assert changes_of_defaults(made, again) == [
        "weight=p2: without the experiment's offset",
        "weight=p2: with the experiment's gamma=10.0",
        "optimizer=adam: with the experiment's betas=[0.9, 0.99], warmup_steps=100, cosine_decay=True",
    ]
    assert (made.weight.gamma, made.optimizer.lr) == (10, 1e-4)
    typed = [*words, "++cond.dropout=0.1"]
    assert changes_of_defaults(config("train", *typed), typed) == [], "what was typed is refused, not left out"


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["cond.dropout=0"], ["guidance=none, because the condition is not dropped in training"]),
        (["loss=vlb"], ["time_sampler=stratified, because a bound needs uniform times"]),
        (["loss=vlb", "time_sampler=logit_normal"], [KEPT]),
        (["schedule=linear", "objective=v"], []),
        (["schedule=linear", "objective=eps"], [UNBOUNDED]),
        (["objective=eps", "weight.offset=0.5"], []),
        (["objective=eps", "weight=uniform"], ["weight=uniform: without the experiment's gamma, offset"]),
    ],
)
def test_options_that_nobody_typed_follow_those_that_somebody_typed(config, words, changes):
    assert changes_of_defaults(config("train", "experiment=mnist_class", *words), words) == changes


def test_a_refused_value_that_nobody_typed_is_said_to_be_a_default(config):
    made, message = config("train", "data.num_train=16"), "data.batch_size must be at most 16, got 32"
    assert explain_default(made, ["data.num_train=16"], message) == (
        f"{message}; this value is a default that does not fit the other settings: set data.batch_size too"
    )
    assert explain_default(made, ["data.batch_size=32"], message) == message
    assert explain_default(made, [], "something else") == "something else"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.base_channels=abc", "model.base_channels must be a number, got 'abc'"),
        ("optimizer.lr=fast", "optimizer.lr must be a number, got 'fast'"),
        ("seed=abc", "seed must be a number, got 'abc'"),
        ("compile=perhaps", "compile must be true or false, got 'perhaps'"),
    ],
)
def test_a_text_for_a_number_is_refused_by_the_configuration_alone(config, word, message):
    with pytest.raises(ValueError, match=message):
        refuse_other_kinds(config("train", word), "train", [word])


@pytest.mark.parametrize(
    "words",
    [["model.base_channels=abc"], ["resume=auto", "seed=abc"], ["lr=1"], ["--lr", "1"], ["schedule=cosin"]],
)
def test_what_the_words_alone_show_is_refused_before_torch_is_imported(words, tmp_path):
    start = [sys.executable, "-X", "importtime", str(ROOT / "train.py"), *words]
    ended = subprocess.run(start, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert "error: " in ended.stderr
    assert "hydra.main" in ended.stderr
    assert not re.search(r"\| +torch$", ended.stderr, re.MULTILINE)


@pytest.mark.parametrize("word", ["trainer.devices=auto", "name=abc", "data.resize=box", "optimizer.lr=1e-3"])
def test_texts_that_a_field_may_have_are_accepted(config, word):
    refuse_other_kinds(config("train", word), "train", [word])


# Sizes


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("size", [(7, 7), (16, 16), (28, 28), (29, 31), (48, 64), (64, 64), (100, 100), (256, 256)])
def test_the_network_for_a_size_takes_images_of_this_size(size, device):
    found = network_for(size, device)
    network = UNet(in_channels=3, num_res_blocks=1, num_groups=8, **{**found, "base_channels": 8})
    network.check_images((3, *size))
    assert min(size) // found["patch_size"] >> (len(found["channel_mults"]) - 1) >= min(8, *size)


def test_networks_of_a_gpu_have_the_levels_of_ho_et_al():
    """Their appendix B: 256 pixels have six levels. They use four for 32 pixels, where ours end at 8 pixels."""
    assert network_for((256, 256), "gpu")["channel_mults"] == [1, 1, 2, 2, 4, 4]
    assert network_for((256, 256), "gpu")["attention_levels"] == [4, 5]
    assert network_for((32, 32), "gpu")["channel_mults"] == [1, 2, 2]


def test_more_images_get_more_steps_within_limits():
    counts = [steps_for(num, 64, "gpu") for num in (10, 10_000, 20_000, 10**7)]
    assert counts == [50_000, 160_000, 310_000, 400_000]  # images: 3.2 M, 10 M, 20 M, 25.6 M
    assert steps_for(10, 64, "cpu") < steps_for(10, 64, "gpu")


def test_a_run_on_a_folder_says_what_it_chose_and_keeps_it_on_resuming(tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", (20, 30), (20 * number, 100, 200)).save(folder / f"{number}.png")
    words = (
        *("experiment=images", "data=folder", f"data.source.root={folder}", "data.size=16", "trainer=cpu"),
        *("logger=none", "data.batch_size=4", "data.num_workers=0", "model.base_channels=8", "model.num_groups=4"),
        *("model.num_res_blocks=1", "sampler.steps=2", "callbacks.samples.num_samples=4", "limits.max_minutes=0.01"),
    )
    made = configured("train", tmp_path / "run", *words)
    train.run_train(made)
    printed = capsys.readouterr().out
    said = "chosen for 12 images on a CPU: model.channel_mults=[1] model.attention_levels=[0] model.patch_size=2"
    assert said in printed
    train.run_train(configured("train", tmp_path / "run", *words, "resume.path=auto"))
    assert "nothing is left to train" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=images", "cond=class"],
        ["experiment=mnist", "data=parquet", "data.source.path=nowhere", "data.size=28", "cond=caption", "text=words"],
    ],
)
def test_a_dry_run_needs_no_data(tmp_path, capsys, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    extra = ["model=text_unet_tiny"] if "text=words" in words else []
    train.run_train(configured("train", tmp_path / "run", *words, *extra, "trainer=cpu", "dry_run=true"))
    printed = capsys.readouterr().out
    assert "assumed: 10,000 images of 3 x " in printed
    assert "parameters " in printed
