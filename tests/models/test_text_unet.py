"""The U-Net with a text encoder of its own: what it hears of a text, and what it does without one."""

import pytest
import torch
from networks import awake
from precision import assert_same

from ddpm.networks.text.words import WordEncoder, Words
from ddpm.networks.text_unet import TextUNet
from ddpm.networks.transformer import MultiHeadAttention

TEXT = Words(num_tokens=4, token_channels=8, depth=1, num_heads=2, vocabulary=("a", "bold", "two"))
SMALL = {
    **{"in_channels": 1, "base_channels": 8, "channel_mults": [1], "num_res_blocks": 1, "attention_levels": [0]},
    **{"num_groups": 4},
}
X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
TIME = torch.tensor([3, 7])


def network(**changes):
    return awake(TextUNet(text=TEXT, **SMALL | changes))


def test_other_words_and_another_order_make_other_outputs():
    model, texts = network(), ["a bold two", "two bold a", "a two", ""]
    found = [model(X, TIME, caption=TEXT.tokenize([text] * 2)) for text in texts]
    for i, one in enumerate(found):
        assert all(not torch.allclose(one, other, atol=1e-5) for other in found[:i])


def test_no_caption_is_the_empty_text():
    model = network()
    assert torch.equal(model(X, TIME), model(X, TIME, caption=TEXT.tokenize(["", ""])))


def test_dropping_all_captions_is_the_unconditional_model():
    """Attention to tokens that are the same for all images adds a constant function of the pixels: no text is told."""
    model = network()
    empty = model(X, TIME, caption=TEXT.tokenize(["", ""]))
    both = model(X, TIME, caption=TEXT.tokenize(["", "a two"]))
    assert torch.allclose(empty[0], both[0], atol=1e-6)
    assert not torch.allclose(empty[1], both[1], atol=1e-4)


def test_cross_attention_to_one_token_is_a_linear_map_of_it():
    """Its weight is 1, whatever the pixel asks."""
    attention = awake(MultiHeadAttention(8, 6, 2))
    x, token = X.reshape(2, 8, 8), torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(1)).double()
    expected = attention.out(attention.value(token)).expand(2, 8, 8)
    assert_same(attention(x, token), expected)


def test_the_encoder_of_depth_zero_is_a_normalised_sum_of_word_and_place():
    encoder = WordEncoder(3, 4, 8, depth=0, num_heads=1).double()
    ids = torch.tensor([[3, 0, 1, 0]])
    summed = encoder.words.weight[ids[0]] + encoder.places
    centred = summed - summed.mean(1, keepdim=True)
    expected = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(encoder(ids)[0], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("caption", [torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 4), torch.zeros(1, 4).long()])
def test_a_caption_of_another_shape_is_refused(caption):
    with pytest.raises(ValueError, match=r"caption must be integers \[2, 4\]"):
        network()(X, TIME, caption=caption)


@pytest.mark.parametrize("number", [-1, 4])
def test_a_number_beyond_the_words_is_refused(number):
    with pytest.raises(ValueError, match="caption"):
        network()(X, TIME, caption=torch.full((2, 4), number))


def test_a_frozen_encoder_belongs_to_another_network():
    with pytest.raises(ValueError, match="with a frozen one, use a UNet"):
        TextUNet(text={}, **SMALL)
