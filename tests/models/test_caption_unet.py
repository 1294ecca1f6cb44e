"""A U-Net that looks at words: what a word, no word and its place change."""

import pytest
import torch
from networks import awake
from precision import assert_same

from ddpm.networks.caption_unet import CaptionUNet

SMALL = {"in_channels": 1, "base_channels": 8, "channel_mults": [1, 2], "num_res_blocks": 1, "num_groups": 4}
WORDS = {"num_words": 5, "num_tokens": 3, "token_channels": 6}
X, TIME = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double(), torch.tensor([3, 500])
NOTHING = torch.zeros(2, 3, dtype=torch.int64)


def prompted(**changes):
    return awake(CaptionUNet(**SMALL | WORDS | changes))


def test_at_its_start_the_output_is_zero_whatever_is_said():
    output = CaptionUNet(**SMALL | WORDS).double()(X, TIME, words=torch.tensor([[1, 2, 3], [0, 0, 5]]))
    assert output.equal(torch.zeros_like(X))


def test_no_word_is_a_token_of_zeros_and_no_words_at_all_are_an_empty_caption():
    network = prompted()
    tokens = network.tokens(torch.tensor([[0, 2, 0], [0, 0, 0]]))
    assert tokens.shape == (2, 3, 6)
    assert (tokens.abs().sum(2) > 0).tolist() == [[False, True, False], [False, False, False]]
    assert network(X, TIME).equal(network(X, TIME, words=NOTHING))


def test_a_token_is_of_its_word_and_its_place():
    network = prompted()
    here, there, other = network.tokens(torch.tensor([[2, 0, 0], [0, 2, 0], [3, 0, 0]]))
    places, words = network.places.weight, network.words.weight
    assert_same(there[1] - here[0], places[1] - places[0])
    assert_same(other[0] - here[0], words[2] - words[1])


@pytest.mark.parametrize("changes", [{}, {"transformer_depth": 2}], ids=["attention", "transformers"])
def test_each_word_and_its_place_matter(changes):
    network = prompted(**changes)
    captions = torch.tensor([[1, 2, 3], [2, 1, 3], [1, 2, 4], [1, 2, 0], [0, 0, 0]])
    outputs = network(X[:1].expand(5, -1, -1, -1), TIME[:1].expand(5), words=captions)
    distances = torch.cdist(outputs.flatten(1), outputs.flatten(1)) + torch.eye(5)
    assert distances.min() > 1e-3


@pytest.mark.parametrize("words", [NOTHING, torch.tensor([[1, 2, 3], [4, 5, 1]])], ids=["no words", "words"])
def test_every_parameter_has_a_gradient_in_each_step_as_ddp_needs(words):
    network = prompted().requires_grad_(True)
    network(X, TIME, words=words).square().sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
    assert (network.words.weight.grad.abs().max() > 0) == (words is not NOTHING)


def test_the_other_conditions_of_the_unet_are_handed_on():
    network = prompted(num_classes=3, self_condition=True)
    assert network.self_condition
    plain = network(X, TIME, words=NOTHING)
    assert (network(X, TIME, words=NOTHING, label=torch.tensor([0, 2])) - plain).abs().max() > 1e-3
    assert (network(X, TIME, words=NOTHING, x0_guess=X) - plain).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (torch.tensor([[1, 2], [1, 2]]), r"words must be integers \[B, 3\], got 'torch.int64 \[2, 2\]'"),
        (torch.zeros(2, 3), r"words must be integers \[B, 3\]"),
        (torch.tensor([[1, 2, 6], [0, 0, 0]]), "words must be in 0..5, 0 for none, got 6"),
        (torch.tensor([[1, 2, 5], [-1, 0, 0]]), "words must be in 0..5, 0 for none, got -1"),
    ],
)
def test_words_that_cannot_be_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        CaptionUNet(**SMALL | WORDS)(X, TIME, words=words)


@pytest.mark.parametrize("name", ["num_words", "num_tokens", "token_channels"])
@pytest.mark.parametrize("value", [None, 0, 2.5])
def test_a_setting_that_cannot_be_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        CaptionUNet(**SMALL | WORDS | {name: value})
