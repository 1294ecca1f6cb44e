"""What a network is told of an image: which part of it is hidden in training, and how a person asks for a class."""

import pytest
import torch

from ddpm.base.rng import Rng
from ddpm.diffusion.conditions.base import ClassLabel, NoCondition, Several, drop_conditions
from ddpm.diffusion.conditions.low_resolution import LowResolution

NAMES = ["cat", "dog", "eel"]


def labels(num, num_classes=10):
    return torch.arange(num) % num_classes


def hidden(condition, ids, label):
    return drop_conditions(condition, {"label": label}, Rng(0, "train").at(0, ids))["label"]


def test_the_share_of_hidden_labels_is_the_dropout():
    num, dropout = 20_000, 0.1
    told = hidden(ClassLabel(10, dropout), torch.arange(num), labels(num))
    share = float((told == -1).double().mean())
    assert abs(share - dropout) < 4 * (dropout * (1 - dropout) / num) ** 0.5  # four standard errors
    assert torch.equal(told[told >= 0], labels(num)[told >= 0])


def test_without_dropout_all_is_told_and_with_all_of_it_nothing():
    ids = torch.arange(100)
    assert torch.equal(hidden(ClassLabel(10, 0.0), ids, labels(100)), labels(100))
    assert (hidden(ClassLabel(10, 1.0), ids, labels(100)) == -1).all()


def test_whether_a_label_is_hidden_depends_on_its_image_and_on_no_other():
    condition, ids = ClassLabel(10, 0.5), torch.arange(64)
    whole = hidden(condition, ids, labels(64))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(hidden(condition, ids[order], labels(64)[order]), whole[order])
    assert torch.equal(hidden(condition, ids[7:8], labels(64)[7:8]), whole[7:8])


def test_hiding_takes_away_what_the_condition_tells_and_nothing_else():
    guess = torch.ones(3, 1, 2, 2)
    left = ClassLabel(10, 0.0).unconditional({"label": labels(3), "x0_guess": guess})
    assert left["label"].tolist() == [-1, -1, -1]
    assert left["x0_guess"] is guess


def test_no_condition_tells_nothing():
    condition = NoCondition()
    assert condition.of({"label": labels(3)}) == condition.default_conditions(labels(3)) == {}
    assert drop_conditions(condition, {}, Rng(0, "train").at(0, labels(3))) == {}


@pytest.mark.parametrize(
    ("choice", "asked"),
    [
        ("all", [0, 1, 2]),
        ("none", [-1]),
        ("dog", [1]),
        (2, [2]),
        (["eel", 0, "none"], [2, 0, -1]),
        ([1, 1], [1, 1]),
    ],
)
def test_a_class_is_asked_for_by_number_or_name(choice, asked):
    assert ClassLabel(3, 0.0, NAMES).from_request(choice) == asked


def test_names_that_are_digits_are_names():
    shifted = ClassLabel(3, 0.0, ["1", "2", "3"])
    assert shifted.from_request(3) == shifted.from_request("3") == [2]
    assert ClassLabel(3, 0.0).from_request(0) == [0]


@pytest.mark.parametrize("choice", ["dgo", 3, -1, True, 1.0, ["cat", "cow"]])
def test_an_unknown_class_gets_an_error_with_all_names(choice):
    with pytest.raises(ValueError, match="class must be 0 to 2 or one of cat, dog, eel, or all, or none"):
        ClassLabel(3, 0.0, NAMES).from_request(choice)


def test_the_nearest_name_is_proposed():
    with pytest.raises(ValueError, match="'dog'"):
        ClassLabel(3, 0.0, NAMES).from_request("dgo")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 0, "dropout": 0.1}, "num_classes must be a positive integer"),
        ({"num_classes": None, "dropout": 0.1}, "num_classes must be a positive integer"),
        ({"num_classes": 3, "dropout": 1.5}, "dropout must be"),
        ({"num_classes": 2, "dropout": 0.1, "names": NAMES}, "names must be one for each of the 2 classes"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        ClassLabel(**settings)


def test_several_conditions_tell_what_each_tells_and_are_hidden_together():
    several = Several({"class": ClassLabel(10, 0.0), "small": LowResolution(factor=2, dropout=0.0)}, dropout=0.5)
    assert several.network_settings == {"num_classes": 10, "concat_channels": True}
    assert several.needs_images
    with pytest.raises(
        ValueError, match=r"parts must be conditions with different inputs of the network, got \['a', 'b'\]"
    ):
        Several({"a": LowResolution(factor=2, dropout=0.0), "b": LowResolution(factor=4, dropout=0.0)})
    image = torch.ones(64, 1, 4, 4)
    cond = several.of({"image": image, "label": labels(64)})
    assert cond.keys() == {"label", "concat"}
    told = drop_conditions(several, cond, Rng(0, "train").at(0, torch.arange(64)))
    hidden_labels, hidden_images = told["label"] == -1, (told["concat"] == 0).flatten(1).all(1)
    assert torch.equal(hidden_labels, hidden_images)
    assert 0 < hidden_labels.sum() < 64


def test_a_part_that_would_be_hidden_alone_is_refused():
    with pytest.raises(ValueError, match=r"parts.class.dropout must be 0"):
        Several({"class": ClassLabel(10, 0.1)})
