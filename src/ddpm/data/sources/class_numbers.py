"""The numbers of classes, from whatever a data set has as labels."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm.data.sources.base import composed


class Labels(NamedTuple):
    """numbers: int64 `[N]`, -1 for no label. names: of the classes, if they are not numbers. problem: why there are
    labels that are not used, "" if there is no such reason; it matters to those alone who need labels."""

    numbers: Tensor
    names: tuple[str, ...] = ()
    problem: str = ""


def no_labels(num: int, problem: str = "") -> Labels:
    return Labels(torch.full((num,), -1), (), problem)


def number_classes(
    values: Sequence[Any], what: str, name_of: Callable[[int], str], names: tuple[str, ...] = ()
) -> Labels:
    """Integers are numbers of classes, and are kept. Other values are names, which are numbered in their order,
    in composed Unicode characters (NFC), so that it is the same on every file system.

    A value is missing if it is None, NaN, "" or -1. what: the values in the problem of those that are no classes, such
    as vectors. name_of: the name of an image. names: of classes that have numbers.
    """
    wrong = [number for number, value in enumerate(values) if not is_class(value)]
    if wrong:
        value, where = " ".join(f"{values[wrong[0]]!r:.60}".split()), name_of(wrong[0])
        problem = f"{what} must be the number or the name of a class (-1: none), but {len(wrong):,} of {len(values):,}"
        return no_labels(len(values), f"{problem} are not, for example {value} of {where}")
    present = {value for value in values if not is_missing(value)}
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        written: dict[str, str] = {}  # by the composed name
        for text in sorted(set(map(str, present)), reverse=True):
            if (other := written.setdefault(composed(text), text)) != text:
                problem = f"{what} is of two classes that look the same, {other!a} and {text!a}; rename one of them"
                return no_labels(len(values), problem)
        names = tuple(sorted(written))
        number = {written[name]: place for place, name in enumerate(names)}
        return Labels(torch.tensor([-1 if is_missing(v) else number[str(v)] for v in values]), names)
    if names and (largest := int(max(present, default=-1))) >= len(names):
        return no_labels(len(values), f"{what} is {largest}, but there are names of {len(names)} classes alone")
    return Labels(torch.tensor([-1 if is_missing(value) else int(value) for value in values]), names)


def is_missing(value: Any) -> bool:
    return value is None or value == "" or value != value or (value == -1 and not isinstance(value, str))


def is_class(value: Any) -> bool:
    if isinstance(value, float):
        return math.isnan(value) or (value.is_integer() and -1 <= value < 2**31)
    return value is None or isinstance(value, str) or (isinstance(value, int) and -1 <= value < 2**31)
