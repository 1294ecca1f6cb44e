"""The clock and the programs of benchmarks/time_to_quality.py."""

import time

import pytest
import torch

from benchmarks import time_to_quality
from benchmarks.time_to_quality import Diffusers, Lucidrains, Point, ThisProject, measure, minutes_to
from ddpm.metrics.score import Estimate

IMAGES = torch.rand(40, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
SMALL = {"batch_size": 4, "sampler_steps": 2, "lr": 1e-2}


def lucidrains(**settings):
    pytest.importorskip("denoising_diffusion_pytorch")
    return Lucidrains(IMAGES, dim=8, dim_mults=(1, 2), attn_heads=1, attn_dim_head=8, **SMALL, **settings)


def diffusers(**settings):
    pytest.importorskip("diffusers")
    return Diffusers(IMAGES, channels=(8, 8), attention_level=1, layers=1, groups=4, **SMALL, **settings)


class Counted:
    """A training of `steps` steps that take a minute each on the given clock."""

    def __init__(self, monkeypatch, steps):
        self.seconds, self.steps = 0.0, steps
        monkeypatch.setattr(time, "process_time", lambda: self.seconds)

    def train(self, after_step):
        for _ in range(self.steps):
            self.seconds += 60
            if after_step():
                return


@pytest.mark.parametrize(("steps", "expected"), [(99, [(2, 3), (5, 6)]), (5, [(2, 3), (4, 5)]), (3, [(2, 3)])])
def test_the_clock_stops_while_a_training_is_measured(monkeypatch, steps, expected):
    program, seen = Counted(monkeypatch, steps), []

    def keep(minutes, steps):
        seen.append((minutes, steps))
        program.seconds += 1000

    measure(program, (1.5, 1.9, 5), keep)
    assert seen == expected


def test_the_time_to_a_quality_lies_on_a_power_law():
    points = [Point(m, 0, Estimate(m**-1.5, 0.01)) for m in (0.5, 1, 4, 8)]
    assert minutes_to(points, 2.0**-1.5) == "2.00"
    assert minutes_to(points, 100) == "< 0.50"
    assert minutes_to(points, 0.001) == "> 8.0"


@pytest.mark.parametrize("make", [lucidrains, diffusers])
@pytest.mark.parametrize("size", [28, 32])
def test_a_peer_trains_until_it_is_stopped_and_samples_digits(make, size):
    program, left = make(size=size), [True, True, False]
    network = program.process.model if make is lucidrains else program.network
    before = [parameter.clone() for parameter in network.parameters()]
    program.train(lambda: not left.pop(0))
    assert not left
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    images = program.sample(3)
    assert images.shape == (3, 1, 28, 28)
    assert images.abs().max() <= 1


def test_diffusers_samples_with_averaged_weights_and_goes_on_with_its_own():
    program = diffusers(size=28)
    own = [parameter.clone() for parameter in program.network.parameters()]
    torch.manual_seed(1)
    before = program.sample(2)
    for shadow in program.average.shadow_params:
        shadow.zero_()
    torch.manual_seed(1)
    assert not torch.equal(before, program.sample(2))
    assert all(torch.equal(a, b) for a, b in zip(own, program.network.parameters(), strict=True))


@pytest.mark.parametrize("experiment", ["mnist_uncond", "mnist_class"])
def test_this_project_stops_and_samples_in_training(experiment):
    program, shapes = ThisProject(IMAGES, experiment), []

    def after_step():
        shapes.append(program.sample(2).shape)
        return len(shapes) == 2

    program.train(after_step)
    assert shapes == [(2, 1, 28, 28)] * 2


def test_every_entry_has_a_key_of_its_own_settings():
    pytest.importorskip("denoising_diffusion_pytorch")
    keys = [time_to_quality.key(name) for name in time_to_quality.ENTRIES]
    assert len({key.partition("|")[2] for key in keys}) == len(keys)
