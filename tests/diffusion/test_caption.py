"""Captions as a condition: what a text encoder is given for texts, for none, and for a negative prompt."""

import warnings
from types import SimpleNamespace

import pytest
import torch

from ddpm.base.rng import Rng
from ddpm.diffusion.conditions.base import drop_conditions
from ddpm.diffusion.conditions.caption_text import Caption, example_captions
from ddpm.networks.text.words import Words, words_of

WORDS = Words(num_tokens=3, token_channels=8, depth=1, num_heads=2)
VOCABULARY = ["a", "bold", "thin", "two"]


def caption(dropout=0.0, **changes):
    return Caption(text=WORDS, dropout=dropout, vocabulary=VOCABULARY, **changes)


def frozen(texts):
    """The length of a text as its embedding `[B, 1, 2]`."""
    return torch.tensor([[[float(len(text)), 1.0]] for text in texts])


def test_words_are_numbered_from_one_in_the_order_of_the_vocabulary():
    assert caption().rows(["a bold two", "Two", ""])["caption"].tolist() == [[1, 2, 4], [4, 0, 0], [0, 0, 0]]


def test_the_vocabulary_is_every_word_once():
    assert Words.vocabulary_of(["A bold two.", "two, thin"]) == [",", ".", "a", "bold", "thin", "two"]
    assert words_of("${a:b}") == ["$", "{", "a", ":", "b", "}"]


def test_a_frozen_encoder_gives_embeddings_and_the_network_their_size():
    text = SimpleNamespace(trained=False, token_channels=2, embed=frozen)
    condition = Caption(text=text, dropout=0.0)
    assert condition.network_settings == {"token_channels": 2}
    assert condition.rows(["abc", ""])["tokens"].tolist() == [[[3, 1]], [[0, 1]]]
    assert condition.unconditional(condition.rows(["abc", "d"]))["tokens"].tolist() == [[[0, 1]], [[0, 1]]]


def test_another_frozen_encoder_is_refused_with_both_hashes():
    embed = type("Embed", (), {"__call__": staticmethod(frozen), "sha256": "new"})()
    condition = Caption(
        text=SimpleNamespace(trained=False, token_channels=2, embed=embed), dropout=0, encoder_sha256="old"
    )
    with pytest.raises(ValueError, match="has the hash new, but the model was trained with that of old"):
        condition.rows(["a"])


def test_dropped_captions_are_empty_ones_in_the_expected_share():
    condition, num = caption(dropout=0.3), 4000
    cond = condition.rows(["a two"] * num)
    left = drop_conditions(condition, cond, Rng(0, "train").at(0, torch.arange(num)))["caption"]
    empty = (left == 0).all(1)
    assert left[~empty].equal(cond["caption"][~empty])
    assert abs(empty.double().mean() - 0.3) < 5 * (0.3 * 0.7 / num) ** 0.5


def test_a_negative_prompt_takes_the_place_of_the_empty_text():
    condition = caption(negative="thin two")
    assert condition.unconditional(condition.rows(["a two"]))["caption"].tolist() == [[3, 4, 0]]


def test_an_empty_text_that_sampling_used_first_can_be_trained_on():
    condition, table = caption(), torch.nn.Embedding(5, 2)
    with torch.inference_mode():
        condition.unconditional(condition.rows(["a two"]))
    cond = condition.unconditional(condition.rows(["a two"]))
    table(cond["caption"]).sum().backward()
    assert table.weight.grad[0].tolist() == [3, 3]


def test_samples_cycle_through_the_examples():
    condition = caption(examples=["two", "thin"])
    assert condition.default_conditions(torch.tensor([0, 1, 2]))["caption"][:, 0].tolist() == [4, 3, 4]
    assert example_captions(["b", "a", "b", "", "c"]) == ["b", "a", "c"]
    assert example_captions([str(i) for i in range(71)]) == [str(i) for i in range(0, 71, 10)]


def test_a_word_that_was_never_seen_is_refused_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"'bald' is not among these 4: a, bold, thin, two\), got 'bald two'; did you mean 'bold'"
    ):
        caption().resolve("bald two")


def test_a_text_that_is_too_long_is_cut_and_said():
    with pytest.warns(UserWarning, match=r"text.num_tokens=3: of 'a bold thin two', 'two' is cut"):
        rows = caption().rows(["a bold thin two"])["caption"]
    assert rows.tolist() == [[1, 2, 3]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        caption().rows(["a bold two"])


def test_a_batch_without_captions_is_no_batch_of_empty_ones():
    with pytest.raises(ValueError, match="needs a caption of each image"):
        caption().of({"label": torch.tensor([1])})


def test_no_text_encoder_is_refused():
    with pytest.raises(ValueError, match="cond=caption needs a text encoder: text=words"):
        Caption(text={}, dropout=0.1)
