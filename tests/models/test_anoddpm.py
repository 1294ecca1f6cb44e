"""The network and the recipe of AnoDDPM (Wyatt et al. 2022)."""

import math
from pathlib import Path

import torch
from omegaconf import OmegaConf
from precision import roundings

from ddpm.networks import UNet
from ddpm.networks.attention import Attention
from ddpm.networks.embeddings import cosinusoid

CONF = Path(__file__).parents[2] / "conf" / "model"


def network(channels=1):
    config = OmegaConf.create({"data": {"channels": channels}, "model": OmegaConf.load(CONF / "anoddpm_256.yaml")})
    settings = OmegaConf.to_container(config, resolve=True)["model"]
    assert settings.pop("_target_") == "ddpm.networks.unet.UNet"
    with torch.device("meta"):
        return UNet(**settings)


def test_the_network_has_the_number_of_parameters_of_the_published_program():
    assert sum(parameter.numel() for parameter in network().parameters()) == 131_649_793


def test_two_heads_attend_at_32_and_16_and_8_pixels_and_in_the_middle():
    made, found = network(), []
    finest = {"down": lambda n: n, "up": lambda n: len(made.up) - 1 - n, "middle": lambda n: len(made.down) - 1}
    for name, module in made.named_modules():
        if isinstance(module, Attention):
            way, number = name.split(".")[:2]
            found.append((way, 256 >> finest[way](int(number)), module.num_heads))
    sides = [("down", 2), ("up", 3)]
    expected = [(way, side, 2) for way, num in sides for side in (32, 16, 8) for _ in range(num)] + [("middle", 8, 2)]
    assert sorted(found) == sorted(expected)


def test_our_waves_are_theirs_in_another_order():
    """Theirs: all sines, then all cosines, of t / 10000^(i / half); what sees them is a linear layer."""
    times, half = torch.tensor([0, 3, 799]), 64
    angles = times[:, None] * torch.tensor([math.exp(-math.log(10000) * i / half) for i in range(half)])
    theirs = torch.cat([angles.sin(), angles.cos()], dim=1)
    apart = (cosinusoid(times, 128).roll(half, dims=1) - theirs).abs().max()
    assert apart < roundings(4, scale=799)  # of the largest angle in float32: its frequency and product, on both sides


def test_the_recipe_is_that_of_the_published_program(config):
    made = config("train", "experiment=anoddpm_256", "data.source.root=FOLDER")
    assert (made.schedule.num_timesteps, made.schedule.beta_start, made.schedule.beta_end) == (1000, 1e-4, 0.02)
    assert (made.optimizer.lr, made.optimizer.weight_decay, made.optimizer.warmup_steps) == (1e-4, 0.0, 0)
    assert (made.data.batch_size, made.data.channels, made.data.size) == (1, 1, 256)
    assert (made.trainer.max_steps, made.trainer.gradient_clip_val) == (3000 * 100, 1.0)
    assert (made.ema.decay, made.ema.warmup, made.time_sampler.largest) == (0.9999, False, 800)
    noise = made.noise
    assert (noise.octaves, noise.persistence, noise.frequency, noise.unit_variance) == (6, 0.8, 64, False)
    assert made.process.reverse_noise == "white"
    assert made.variance._target_.endswith("FixedLarge")
    assert made.optimizer._target_.endswith("adamw")
