"""Averaged weights: their values in closed form, and what a checkpoint keeps of them."""

import math

import pytest
import torch
from precision import roundings
from torch import nn

from ddpm.model.ema import WeightAverages, decay_of_half_life, weight_averages


def network(value=0.0):
    net = nn.Linear(2, 2)
    for parameter in net.parameters():
        nn.init.constant_(parameter, value)
    return net


def average_after(averages, values, net):
    for value in values:
        for parameter in net.parameters():
            nn.init.constant_(parameter, value)
        averages.update(net)
    return [copy.weight[0, 0].item() for copy in averages.copies]


def test_the_average_of_constant_weights_approaches_them_geometrically():
    """From 0 towards 1 with decay d: after n updates 1 - d^n."""
    net = network(0.0)
    found = average_after(WeightAverages(net, [0.9, 0.5], warmup=False), [1.0] * 7, net)
    assert found == pytest.approx([1 - 0.9**7, 1 - 0.5**7], rel=roundings(10))


def test_warmup_forgets_the_initial_weights():
    """The product of the decays (1 + n) / (10 + n), n = 0..9, is what is left of the initial weights."""
    net = network(0.0)
    left = math.prod((1 + n) / (10 + n) for n in range(10))
    assert average_after(WeightAverages(net, 0.9999), [1.0] * 10, net) == pytest.approx([1 - left], rel=roundings(10))
    assert left < 1e-4


def test_before_its_start_an_average_is_a_copy():
    net = network(0.0)
    averages = WeightAverages(net, 0.9, warmup=False, start_step=3)
    assert average_after(averages, [1.0, 2.0, 3.0], net) == [3.0]
    assert average_after(averages, [4.0], net) == pytest.approx([0.9 * 3 + 0.1 * 4], rel=roundings(4))


def test_the_half_life_in_images_halves_the_memory():
    assert decay_of_half_life(1000, batch_size=100) ** 10 == pytest.approx(0.5)
    net = network(1.0)
    averages = weight_averages(net, None, half_life_images=320, batch_size=32, warmup=False, start_step=0)
    assert average_after(averages, [0.0] * 10, net) == pytest.approx([0.5], rel=roundings(10))


@pytest.mark.parametrize(("decay", "half_life"), [(0.9, 500), (None, None)])
def test_decay_and_half_life_exclude_each_other(decay, half_life):
    with pytest.raises(ValueError, match="give one of them"):
        weight_averages(network(), decay, half_life, batch_size=1, warmup=True, start_step=0)


def test_updates_and_copies_survive_a_state_dict():
    net = network(0.0)
    averages = WeightAverages(net, [0.9, 0.99])
    average_after(averages, [1.0, 2.0, 3.0], net)
    other = WeightAverages(network(5.0), [0.9, 0.99])
    other.load_state_dict(averages.state_dict())
    assert average_after(other, [4.0], network()) == average_after(averages, [4.0], network())


def test_another_number_of_averages_than_in_the_checkpoint_is_refused():
    """Another decay goes on from the same average: whether a run may change it is asked where it is resumed."""
    saved = WeightAverages(network(), [0.9, 0.99]).state_dict()
    with pytest.raises(ValueError, match=r"as many as in the checkpoint, \[0\.9, 0\.99\], got \[0\.99\]"):
        WeightAverages(network(), [0.99]).load_state_dict(saved)


def test_buffers_are_copied_and_averages_are_not_trained():
    net = nn.BatchNorm1d(3)
    averages = WeightAverages(net, 0.9)
    net(torch.randn(8, 3))
    averages.update(net)
    assert torch.equal(averages.copies[0].running_mean, net.running_mean)
    assert not any(p.requires_grad for p in averages.parameters())


@pytest.mark.parametrize("decay", [1.0, -0.1, "0.9", [0.9, 0.9], float("nan")])
def test_bad_decays_are_refused(decay):
    with pytest.raises(ValueError, match="decay must be"):
        WeightAverages(network(), decay)
