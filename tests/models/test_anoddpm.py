"""The network and the recipe of AnoDDPM (Wyatt et al. 2022)."""

import math

import torch
from precision import roundings

from ddpm.networks.embeddings import cosinusoid


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
