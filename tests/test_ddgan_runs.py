"""A denoising diffusion GAN through the commands: trained, loaded, sampled, interpolated, on two processes."""

import numpy as np
import pytest
import torch
from precision import assert_rounded
from processes import command, ended
from small_models import QUICK
from small_runs import configured

import ddpm
from ddpm.checkpoint.reading import read_checkpoint
from ddpm.commands import evaluate, sample, train
from ddpm.commands.values import check_values
from ddpm.config import build

GAME = (
    *(word for word in QUICK if not word.startswith("model.")),
    *("loss=ddgan", "model=ddgan_mlp", "adversary=ddgan_mlp", "adversary_optimizer=adam", "objective=x0"),
    *("schedule=vp", "schedule.num_timesteps=4", "sampler.steps=null", "clip=none", "trainer.max_steps=2"),
    *("model.width=16", "adversary.width=16"),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddgan")
    train.run_train(configured("train", folder / "run", *GAME))
    return folder / "run" / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model=unet_tiny",), "loss=ddgan needs a generator with a latent, as model=ddgan_tiny, got model=UNet"),
        (("objective=eps",), "objective must be x0 with model=DDGANGenerator, whose output is an image, got 'Eps'"),
        (("data.batch_size=30",), r"a micro-batch of 30 images does not divide by adversary\.group_size = 4"),
        (("data.batch_size=24", "trainer.accumulate_grad_batches=4"), "a micro-batch of 6 images does not divide"),
    ],
)
def test_what_a_gan_is_not_trained_with_is_one_error_before_any_work(config, words, message):
    with pytest.raises(ValueError, match=message):
        train.run_train(config("train", "experiment=ddgan_mnist", *words, "trainer=cpu", "dry_run=true"))


def test_an_adversary_is_refused_by_its_name_in_a_loss_without_one(config):
    words = ("adversary=ddgan_tiny", "adversary_optimizer=adam")
    with pytest.raises(ValueError, match="adversary=DDGANDiscriminator has nothing to do in this loss"):
        check_values(config("train", "experiment=mnist", *words))


def test_a_latent_of_the_sampler_is_refused_without_one_of_the_network(small):
    with pytest.raises(ValueError, match=r"sampler\.latent must be fresh for a network without a latent, got 'fixed'"):
        build.module(small("sampler.latent=fixed"))


def test_a_sample_depends_on_its_number_alone(checkpoint):
    model = ddpm.load(checkpoint)
    assert_rounded(model.sample(20, batch_size=3), model.sample(20, batch_size=20), 100)
    assert len(model.sample(20).flatten(1).unique(dim=0)) == 20


def test_a_sample_takes_one_call_of_the_network_for_each_of_four_steps(checkpoint):
    model, times = ddpm.load(checkpoint), []
    model.best_network.register_forward_pre_hook(lambda network, given: times.append(given[1].tolist()))
    model.sample(2)
    assert times == [[3, 3], [2, 2], [1, 1], [0, 0]]


def test_a_fixed_latent_makes_other_samples(checkpoint):
    fixed = ddpm.load(checkpoint, "sampler.latent=fixed").sample(4)
    assert not torch.equal(fixed, ddpm.load(checkpoint).sample(4))


@pytest.mark.parametrize("name", ["ddim", "dpm_solver", "heun", "langevin"])
def test_a_sampler_that_needs_the_mean_is_refused(checkpoint, name):
    with pytest.raises(ValueError, match=r"models a distribution of x0, and the sampler \w+ needs its mean"):
        ddpm.load(checkpoint, f"sampler={name}")


def test_a_likelihood_is_refused_by_an_error_that_ends_the_command(config, checkpoint):
    """The chain of causes ends, too: the exit code is that of the last one known in it."""
    with pytest.raises(ValueError, match="models a distribution, not a mean") as refused:
        evaluate.run_evaluate(config("evaluate", f"ckpt={checkpoint}", "metric=nll", "trainer=cpu"))
    assert refused.value.__cause__ is not refused.value


@pytest.mark.parametrize("of", ["all", "prior", "latent"])
def test_samples_are_interpolated_in_what_was_requested(config, checkpoint, tmp_path, of):
    words = ("task=interpolate_prior", "task.samples=[1,4]", "task.num_mixtures=3", f"task.of={of}")
    sample.run_task(config("sample", f"ckpt={checkpoint}", "trainer=cpu", f"out={tmp_path}", *words))
    with np.load(tmp_path / "interpolate_prior.npz") as arrays:
        first, middle, last = torch.from_numpy(arrays["interpolations"][0])
    samples = ddpm.load(checkpoint).sample(5)
    assert_rounded(first.clamp(-1, 1), samples[1], 100)
    assert torch.allclose(last.clamp(-1, 1), samples[4], atol=1e-4) == (of == "all")
    assert not torch.allclose(first, middle, atol=1e-4)
    assert not torch.allclose(first, last, atol=1e-4)


def test_two_processes_learn_what_one_learns(config, tmp_path):
    """Gradients of each network are averaged by hand, and clipped after that."""
    words = (
        *GAME,
        "optimizer.eps=1.0",
        "adversary_optimizer.eps=1.0",
        "optimizer.lr=0.1",
        "adversary_optimizer.lr=0.1",
    )
    words += ("trainer.max_steps=4", "trainer.gradient_clip_val=0.05", "loss.r1_gamma=0.5", "loss.r1_every=2")
    train.run_train(config("train", *words, f"run_dir={tmp_path / 'alone'}"))
    code, output = ended(command(tmp_path, *words, "trainer.devices=2"))
    assert code == 0, output
    (run,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    one, two = (read_checkpoint(path / "checkpoints" / "last.ckpt")["state_dict"] for path in (tmp_path / "alone", run))
    assert any(name.startswith("adversary.") for name in one)
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert_rounded(two[name], value, 50, scale=1)


def test_classes_steer_both_networks(config, tmp_path):
    train.run_train(config("train", *GAME, "cond=class", f"run_dir={tmp_path / 'run'}"))
    model = ddpm.load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert not torch.equal(model.sample(2, label=3), model.sample(2, label=4))
