"""Captions: what is measured in an image against closed forms, and from words to numbers and back."""

import functools

import pytest
import torch
from precision import assert_same

from ddpm.base.rng import Rng
from ddpm.base.strokes import slant, stroke_width
from ddpm.diffusion.conditions.attributes import Attribute, AttributeWords
from ddpm.diffusion.conditions.base import drop_conditions

NAMES = ["zero", "one", "two"]


def caption(dropout=0.0, **changes):
    weight = Attribute(stroke_width, [2.0, 4.0], ["thin", None, "bold"])
    lean = Attribute(slant, [0.25], ["upright", "leaning"])
    settings = {"num_classes": 3, "names": NAMES, "attributes": {"weight": weight, "slant": lean}}
    return AttributeWords(**settings | changes, dropout=dropout)


def bar(height, width, side=40, top=3, left=4):
    """A white rectangle on black, `[1, 1, side, side]`."""
    image = torch.full((1, 1, side, side), -1.0)
    image[..., top : top + height, left : left + width] = 1
    return image


def diagonal(pixels_right_for_each_up, side=41):
    image = torch.full((1, 1, side, side), -1.0)
    for up in range(11):
        image[0, 0, side - 1 - up, 15 + pixels_right_for_each_up * up] = 1
    return image


@pytest.mark.parametrize(("height", "width"), [(30, 1), (30, 3), (7, 30), (5, 5)])
def test_the_stroke_of_a_bar_is_twice_its_area_over_its_outline(height, width):
    outline = 2 * height + 2 * width - 2 + 2**0.5  # one corner is cut by the diagonal of a pixel
    assert stroke_width(bar(height, width)).item() == pytest.approx(2 * height * width / outline, rel=1e-12)


def test_the_stroke_of_a_long_bar_is_its_width():
    assert stroke_width(bar(990, 3, side=1000)).item() == pytest.approx(3, rel=0.01)


def test_a_stroke_is_as_wide_in_grey_and_wherever_it_is():
    grey = bar(30, 3) * 0.5 - 0.5  # from black to the middle of black and white
    assert stroke_width(grey).item() == pytest.approx(stroke_width(bar(30, 3)).item(), rel=1e-12)
    assert stroke_width(bar(30, 3, top=10, left=0)).item() == pytest.approx(stroke_width(bar(30, 3)).item(), rel=1e-12)


@pytest.mark.parametrize("right", [-1, 0, 1, 2])
def test_the_slant_of_a_line_is_its_slope(right):
    assert slant(diagonal(right)).item() == pytest.approx(right, abs=1e-12)


def test_the_mirror_image_leans_the_other_way():
    image = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert_same(slant(image.flip(3)), -slant(image))
    assert_same(slant(image.flip(2)), -slant(image))


def test_a_black_and_a_plain_image_have_measures_all_the_same():
    plain = torch.stack([torch.full((1, 8, 8), -1.0), torch.zeros(1, 8, 8)])
    assert torch.isfinite(stroke_width(plain)).all()
    assert slant(plain).abs().max() < 1e-12


def test_a_caption_says_the_class_and_what_is_measured_but_no_word_for_the_middle():
    image = torch.cat([bar(30, 1, side=41), bar(30, 4, side=41), diagonal(1)])
    told = caption().of({"image": image, "label": torch.tensor([2, 0, -1])})["words"]
    assert told.dtype == torch.int64
    assert caption().text(told) == ["thin upright two", "upright zero", "thin leaning"]


def test_a_measure_on_a_bound_belongs_to_the_word_below_it():
    exact = Attribute(lambda images: images.double().mean((1, 2, 3)), [0.0, 0.5], ["low", "middle", "high"])
    images = torch.tensor([-0.1, 0.0, 0.1, 0.5, 0.6]).view(5, 1, 1, 1).expand(5, 1, 2, 2)
    assert exact.bucket(images).tolist() == [0, 0, 1, 1, 2]


def test_each_image_has_its_own_caption_whatever_the_batch():
    image = torch.cat([bar(30, 1), bar(30, 9), bar(9, 30, left=1), bar(20, 20)])
    label, order = torch.tensor([0, 1, 2, 0]), torch.tensor([3, 1, 0, 2])
    told = caption().of({"image": image, "label": label})["words"]
    assert caption().of({"image": image[order], "label": label[order]})["words"].equal(told[order])


def test_words_that_a_batch_brings_are_told_as_they_are():
    words = torch.tensor([[1, 0, 5], [0, 0, 0]])
    assert caption().of({"words": words, "label": torch.tensor([-1, -1])})["words"].equal(words)


def test_a_sample_without_image_is_told_its_label_alone():
    told = caption().of({"index": torch.arange(3), "label": torch.tensor([1, -1, 2])})
    assert caption().text(told["words"]) == ["one", "", "two"]


@pytest.mark.parametrize("prompt", ["bold leaning two", "thin", "upright one", "", "zero"])
def test_a_prompt_comes_back_as_it_was_typed(prompt):
    told = caption().resolve(prompt)[0]["words"]
    assert told.shape == (1, 3)
    assert caption().text(told) == [prompt]


def test_the_order_of_words_and_capitals_do_not_matter():
    assert caption().resolve("Two  BOLD")[0]["words"].equal(caption().resolve("bold two")[0]["words"])


def test_a_list_of_prompts_is_a_row_for_each():
    told = caption().resolve(["two", "", "thin zero"])[0]["words"]
    assert caption().text(told) == ["two", "", "thin zero"]


def test_names_that_are_numbers_may_be_asked_for_as_numbers():
    digits = caption(names=["0", "1", "2"])
    assert digits.text(digits.resolve(2)[0]["words"]) == ["2"]


def test_examples_are_all_captions_in_turn_and_begin_with_the_classes():
    told = caption().text(caption().default_conditions(torch.arange(24))["words"])
    assert len(set(told[:12])) == 12  # 3 classes, 2 weights, 2 slants
    assert told[:12] == told[12:]
    assert [text.split()[-1] for text in told[:6]] == NAMES * 2


def test_a_hidden_caption_has_no_words_and_all_else_stays():
    guess = torch.ones(2, 1, 2, 2)
    left = caption().unconditional({"words": torch.tensor([[1, 2, 3], [0, 1, 5]]), "x0_guess": guess})
    assert left["words"].equal(torch.zeros(2, 3, dtype=torch.int64))
    assert left["x0_guess"] is guess
    assert left["words"].equal(caption().resolve(["", ""])[0]["words"])


def test_a_whole_caption_is_hidden_or_none_of_it_and_as_often_as_dropout_says():
    num, dropout = 4000, 0.1
    told = {"words": torch.tensor([[1, 3, 5]]).repeat(num, 1)}
    left = drop_conditions(caption(dropout), told, Rng(0, "train").at(0, torch.arange(num)))["words"]
    said = (left > 0).sum(1)
    assert set(said.tolist()) == {0, 3}
    share = float((said == 0).double().mean())
    assert abs(share - dropout) < 4 * (dropout * (1 - dropout) / num) ** 0.5  # four standard errors


def test_the_network_is_built_for_all_words_and_kinds_of_words():
    assert caption().network_settings == {"num_words": 2 + 2 + 3, "num_tokens": 3}


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (
            "bald two",
            "prompt must be words of thin, .*, two, got 'bald two'; did you mean 'bold'",
        ),
        ("thin bold", "prompt must be at most one word of thin, bold, got 'thin bold'"),
        ("one two", "prompt must be at most one word of zero, one, two"),
        ([], "prompt must be a text or a list of texts"),
        (["two", "three"], "prompt must be words of .*, got 'three'"),
    ],
)
def test_a_prompt_that_was_never_learned_is_refused_with_all_words(prompt, message):
    with pytest.raises(ValueError, match=message):
        caption().resolve(prompt)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (functools.partial(caption, names=["a", "b"]), "names must be a word for each of the 3 classes"),
        (functools.partial(caption, names=None), "names must be a word for each of the 3 classes"),
        (functools.partial(caption, names=["a", "b", "b"]), "names must be different words"),
        (functools.partial(caption, names=["a", "b", "thin"]), "names must be different words"),
        (functools.partial(caption, names=["a", "b", "fire truck"]), "names must be words in lower case"),
        (functools.partial(caption, num_classes=None), "num_classes must be a positive integer"),
        (functools.partial(caption, dropout=2), "dropout must be"),
        (functools.partial(Attribute, slant, [], ["a"]), "bounds must be one or more rising numbers"),
        (functools.partial(Attribute, slant, [1, 1], ["a", "b", "c"]), "bounds must be one or more rising numbers"),
        (functools.partial(Attribute, slant, [1], ["a"]), "words must be 2, one more than the bounds"),
        (functools.partial(Attribute, slant, [1], [None, None]), "words must be at least one word that is not null"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
