"""Each refusal names field, value and remedy."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import pytest

from ddpm.base import check


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: check.positive_int("schedule.timesteps", "abc"),
            "schedule.timesteps must be a positive integer, got 'abc'",
        ),
        (lambda: check.positive_int("T", 0), "T must be a positive integer, got 0"),
        (lambda: check.positive_int("T", True), "T must be a positive integer, got True"),
        (lambda: check.positive_int("T", 1.0), "T must be a positive integer, got 1.0"),
        (lambda: check.positive_int("T", None), "T must be a positive integer, got None"),
        (lambda: check.non_negative_int("seed", -1), "seed must be an integer of at least 0, got -1"),
        (lambda: check.integer("steps", 11, low=1, high=10), "steps must be an integer in 1..10, got 11"),
        (lambda: check.integer("steps", 0, low=1, high=10), "steps must be an integer in 1..10, got 0"),
        (lambda: check.number("eta", 1.5, low=0, high=1), "eta must be a number at least 0 and at most 1, got 1.5"),
        (lambda: check.number("eta", -1, low=0), "eta must be a number at least 0, got -1"),
        (lambda: check.number("eta", math.nan), "eta must be a number, got nan"),
        (lambda: check.number("eta", "1e-4"), "eta must be a number, got '1e-4'"),
        (lambda: check.number("eta", True), "eta must be a number, got True"),
        (lambda: check.positive_number("delta", 0), "delta must be greater than 0, got 0"),
        (lambda: check.boolean("rescale", "no"), "rescale must be true or false, got 'no'"),
        (lambda: check.boolean("rescale", 1), "rescale must be true or false, got 1"),
        (lambda: check.one_of("split", "test", ["train", "val"]), "split must be one of train, val, got 'test'"),
        (
            lambda: check.one_of("split", "trian", ["train", "val"]),
            "split must be one of train, val, got 'trian'; did you mean 'train'?",
        ),
        (lambda: check.fail("alpha_bar", [1.0], "longer"), "alpha_bar must be longer, got [1.0]"),
    ],
)
def test_a_refusal_names_the_field_the_value_and_what_it_must_be(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


def test_what_is_right_comes_back_unchanged():
    assert check.positive_int("T", 1) == 1
    assert check.non_negative_int("seed", 0) == 0
    assert check.integer("steps", 10, low=1, high=10) == 10
    assert check.number("eta", 1, low=0, high=1) == 1.0
    assert check.positive_number("delta", 1e-9) == 1e-9
    assert check.boolean("rescale", False) is False
    assert check.one_of("split", "val", ["train", "val"]) == "val"
    assert check.one_of("bits", 8, (8, 16)) == 8


def test_a_number_comes_back_as_a_float():
    assert isinstance(check.number("eta", 1), float)


def test_a_word_near_none_of_the_options_gets_no_suggestion():
    assert check.suggestion("zebra", ["train", "val"]) == ""


@dataclass(frozen=True)
class Settings(check.Checked):
    steps: check.PositiveInt | None = None
    shares: Sequence[check.Share] | None = ()
    mode: Annotated[str, check.words("fast", "slow")] = "fast"
    compiled: bool = False


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps must be a positive integer, got 0"),
        ({"shares": [0.5, 2]}, "shares must be a number at least 0 and at most 1, got 2"),
        ({"mode": "slwo"}, "mode must be one of fast, slow, got 'slwo'; did you mean 'slow'?"),
        ({"compiled": 1}, "compiled must be true or false, got 1"),
    ],
)
def test_a_dataclass_checks_the_ranges_of_its_annotations(wrong, message):
    assert Settings(steps=3, shares=None) == Settings(3, None)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Settings(**wrong)
