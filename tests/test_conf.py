"""Every configuration composes, builds and trains; every typing error gets the nearest right name."""

import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.errors import HydraException
from hydra.utils import get_object
from small_runs import ROOT, command_environment, composed

from ddpm.base.rng import Rng
from ddpm.checkpoint import groups
from ddpm.commands import train
from ddpm.commands.config_errors import config_error
from ddpm.commands.defaults import changes_of_defaults
from ddpm.commands.former_options import FORMER_OPTIONS
from ddpm.commands.options import first_comment, groups_of, help_text, options_of
from ddpm.commands.values import check_values
from ddpm.config import build

TRAINED_HERE = ("ldm_mnist", "ldm_captions_mnist")
CONF = Path(__file__).resolve().parents[1] / "conf"
MODEL_OPTIONS = [
    f"{group}={option}"
    for group in groups.group_names(builds=True)
    if group != "model"
    for option in options_of(CONF, group)
    if (group, option)
    not in {
        ("variance", "analytic"),  # estimated from a trained model: tests/model_metrics
        *(("guidance", "classifier"), ("guidance", "autoguidance")),  # ask other models: tests/test_guidance_setup.py
        ("loss", "classification"),  # makes no images: tests/test_guidance_setup.py
        ("loss", "ddgan"),  # trains two networks: tests/training/test_turns.py
        ("codec", "latent"),  # asks another model: tests/test_latent_diffusion.py
        ("cond", "semantic"),  # asks for label images: tests/test_spatial_conditions.py
        ("loss", "vae"),  # has networks of its own: tests/diffusion/test_vae.py
        ("cond", "caption"),  # needs captions: tests/test_captions.py
        *(("text", name) for name in ("words", "clip", "t5", "ldm_bert")),  # likewise, and files
        *(("loss", "first_stage_kl"), ("loss", "first_stage_vq")),  # make no images: tests/test_first_stage.py
    }
]
BINOMIAL = ("process=binomial", "codec=binary", "objective=logit", "schedule=jsd", "loss=vlb")
COLD = ("schedule=steps", "objective=x0", "sampler=cold", "schedule.num_timesteps=3")
NEEDS = {  # options that are of use with others only
    "cond=attributes": ("model=caption_unet_tiny",),
    "guidance=classifier_free": ("cond=class",),
    "process=binomial": BINOMIAL,
    **{f"process={name}": COLD for name in ("blur", "fade", "mask", "pixelate", "snow", "snowfall")},
    "process=animorph": COLD,
    "process=decolor": (*COLD, "data.channels=3"),
    "schedule=steps": (*COLD, "process=fade"),
    "codec=binary": BINOMIAL,
    "objective=logit": BINOMIAL,
    "loss=hybrid": ("variance=learned_range",),
    "variance=learned_range": ("loss=hybrid",),
    "time_sampler=loss_aware": ("loss=vlb",),
    "timestep_spacing=custom": ("sampler.steps=null",),
}


WITHOUT_CONDITION = ("noise", "time_sampler", "weight", "error", "timestep_spacing", "ema", "optimizer")
"""Groups whose options meet no condition or guidance: tested with the default experiment only."""


def losses_of_two_steps(module):
    """The losses of two training steps on noise, without Lightning."""
    optimizers = [turn.make_optimizer(turn.network.parameters()) for turn in module.turns]
    images = Rng(0, "test").at(0, torch.arange(4)).normal("image", module.model.image_shape).clamp(-1, 1)
    losses, numbers = [], torch.arange(4)
    batch = {"image": images, "label": numbers, "index": numbers, "position": numbers}
    for epoch in range(2):
        for turn, (optimizer, schedule) in zip(module.turns, optimizers, strict=True):
            total = module.loss_terms(turn, batch, epoch, epoch).total
            optimizer.zero_grad()
            total.mean().backward()
            optimizer.step()
            schedule.step()
            losses.append(total.detach())
        module.averages.update(module.network)
    return torch.stack(losses)


@pytest.mark.parametrize(
    ("option", "experiment"),
    [
        (option, experiment)
        for option in MODEL_OPTIONS
        for experiment in ("mnist", "mnist_class")
        if experiment == "mnist_class" or option.partition("=")[0] not in WITHOUT_CONDITION
    ],
)
def test_every_option_of_a_model_builds_trains_and_samples(small, option, experiment):
    words = [f"experiment={experiment}", option, *NEEDS.get(option, ())]
    config = small(*words, *(["sampler.steps=3"] if "sampler" in option else []))
    changes_of_defaults(config, words)
    check_values(config)
    module = build.module(config)
    assert torch.isfinite(losses_of_two_steps(module)).all()
    asked = module.model.sample_condition.of(
        {"image": torch.zeros(2, *module.model.image_shape), "label": torch.arange(2)}
    )
    shape = (2, *module.model.image_shape)
    samples = module.model.eval().generate(torch.arange(2), module.model.best_weights, asked, torch.zeros(shape))
    assert samples.shape == shape
    assert torch.isfinite(samples).all()


def test_what_is_estimated_from_a_trained_model_is_refused_before_training(small):
    with pytest.raises(ValueError, match="variance=analytic is estimated from a trained model and its data"):
        train.run_train(small("variance=analytic"))


@pytest.mark.parametrize("objective", ["eps", "x0", "v"])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid", "quadratic", "constant", "warmup"])
def test_every_schedule_goes_with_every_objective(small, schedule, objective):
    module = build.module(small(f"schedule={schedule}", f"objective={objective}", "schedule.num_timesteps=50"))
    assert torch.isfinite(losses_of_two_steps(module)).all()


@pytest.mark.parametrize("experiment", options_of(CONF, "experiment"))
def test_every_experiment_composes_and_names_its_parts(config, experiment):
    made = config("train", f"experiment={experiment}")
    assert made.name == experiment
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    assert text.startswith("# @package _global_\n# ")
    if experiment.startswith(("ddpm", "iddpm", "dpm2015", "ldm")) and experiment not in TRAINED_HERE:
        assert "# Expected: " in text
        assert "# Command: python train.py" in text


def test_every_experiment_says_where_its_numbers_are_from():
    texts = {path.stem: path.read_text() for path in (CONF / "experiment").glob("*.yaml")}
    assert [name for name, text in texts.items() if not re.search("^# Numbers: .+", text, re.MULTILINE)] == []


def test_the_paper_recipe_is_to_the_letter(config):
    """Ho et al. 2020, section 4 and appendix B."""
    made = config("train", "experiment=ddpm_cifar10")
    assert (made.schedule.num_timesteps, made.schedule.beta_start, made.schedule.beta_end) == (1000, 1e-4, 0.02)
    assert (made.optimizer.lr, list(made.optimizer.betas), made.optimizer.warmup_steps) == (2e-4, [0.9, 0.999], 5000)
    assert (made.data.batch_size, made.data.flip, made.model.dropout) == (128, True, 0.1)
    assert (made.ema.decay, made.trainer.max_steps, made.trainer.gradient_clip_val) == (0.9999, 800000, 1.0)
    assert made.variance._target_.endswith("FixedLarge")
    assert made.sampler.steps is None


@pytest.mark.parametrize(
    ("name", "batch_size", "lr", "betas", "error", "warmup_steps", "scale", "steps", "eta"),
    [
        ("celebahq", 48, 9.6e-5, (0.0015, 0.0195), "mse", 0, 1, 200, 0),
        ("ffhq", 42, 8.4e-5, (0.0015, 0.0195), "mse", 0, 1, 200, 1),
        ("bedroom", 48, 9.6e-5, (0.0015, 0.0195), "mse", 0, 1, 200, 1),
        ("church", 96, 5e-5, (0.0015, 0.0155), "mae", 10000, None, 400, 0),
        ("cin256", 64, 6.4e-5, (0.0015, 0.0195), "mse", 0, 1, 200, 1),
        ("cin256_v2", 1200, 1e-4, (0.0015, 0.0195), "mse", 0, 1, 250, 1),
        ("inpaint", 128, 1.28e-4, (0.0015, 0.0205), "mae", 1000, 1, 50, 0),
        ("semantic", 48, 4.8e-5, (0.0015, 0.0205), "mae", 0, 1, 200, 1),
        ("superres", 64, 6.4e-5, (0.0015, 0.0155), "mse", 0, 1, 100, 1),
    ],
)
def test_the_recipes_of_latent_diffusion_are_to_the_letter(
    config, name, batch_size, lr, betas, error, warmup_steps, scale, steps, eta
):
    """Rombach et al. 2022, tables 12, 13 and 15, and the model list of the authors' repository."""
    made = config("train", f"experiment=ldm_{name}")
    assert (made.data.batch_size, made.optimizer.lr, made.optimizer.warmup_steps) == (batch_size, lr, warmup_steps)
    assert (made.schedule.num_timesteps, made.schedule.beta_start, made.schedule.beta_end) == (1000, *betas)
    assert (made.optimizer.weight_decay, list(made.optimizer.betas)) == (0.01, [0.9, 0.999])
    assert (made.codec.scale, made.sampler.steps, made.sampler.eta) == (scale, steps, eta)
    assert made.error._target_.endswith(error)
    assert made.clip._target_.endswith("no_wrapper")
    assert made.ema.decay == ([] if name == "cin256_v2" else 0.9999)


def test_every_file_says_in_its_first_line_what_it_is():
    assert [path for path in CONF.rglob("*.yaml") if not first_comment(path)] == []


@pytest.mark.parametrize("debug", options_of(CONF, "debug"))
def test_every_debug_profile_composes(config, debug):
    assert config("train", f"debug={debug}").trainer.max_steps <= 200


def test_the_line_of_the_user_composes(config):
    made = config("train", "schedule=cosine", "trainer.devices=8")
    assert made.trainer.devices == 8
    assert made.schedule._target_.endswith("cosine")


@pytest.mark.parametrize("option", ["schedule=warmup50", "metric=guidance", "features=inception_local"])
def test_a_former_option_is_answered_with_the_words_for_it(config, option):
    """That models and experiments are the same by these words: tests/test_earlier_version.py."""
    command, words = "train" if "schedule" in option else "evaluate", FORMER_OPTIONS[option]
    with pytest.raises(HydraException) as refusal:
        config(command, option)
    assert config_error(refusal.value, CONF, command) == f"{option} is now {words}"
    config(command, *shlex.split(words))


def test_help_lists_every_group_and_option_with_one_line():
    text = help_text(CONF, "train")
    for group in groups_of(CONF, "train"):
        for option in options_of(CONF, group):
            line = next(line for line in text.splitlines() if line.strip().startswith(f"{group}={option} "))
            assert len(line.split(maxsplit=1)) == 2


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("[!_]*.yaml")))
def test_the_values_of_every_experiment_are_sound(experiment):
    check_values(composed("train", "run_dir=x", f"experiment={experiment}"))


def test_a_wrong_value_is_met_before_lightning_is_imported():
    """One process for all values: to import torch takes seconds."""
    words = ["schedule.num_timesteps=abc", "sampler.steps=0", "optimizer.lr=-1", "ema.decay=2"]
    words += ["process.reverse_noise=loud"]
    program = """
import sys, train
from ddpm.config.compose import compose
for word in sys.argv[1:]:
    try:
        train.run(compose(train.CONF, "train", [word, "run_dir=nowhere"]))
    except ValueError as error:
        print("error:", error)
assert not [name for name in sys.modules if name.startswith(("lightning", "pytorch_lightning"))]
"""
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=command_environment())
    assert done.returncode == 0, done.stderr
    errors = [line for line in done.stdout.splitlines() if line.startswith("error:")]
    for error, word in zip(errors, words, strict=True):
        assert error.startswith(f"error: {word.partition('=')[0]} must be")


@pytest.mark.parametrize("group", ["model", "adversary"])
def test_every_network_says_before_training_which_images_it_takes(config, group):
    for option in options_of(CONF, group):
        words = [f"{group}={option}", *(["text=words"] if "text" in option else [])]
        target = config("train", *words)[group].get("_target_")
        if target is None or "oracle" in target or target.endswith(".ring"):  # none, and closed-form denoisers
            continue
        network = get_object(target)
        assert hasattr(network, "check_images") or "size" in inspect.signature(network).parameters, option
