"""Checks of user input. Each raises one ValueError that names the field, the value and the remedy."""

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from numbers import Real
from types import NoneType
from typing import Annotated, Any, NoReturn, get_args, get_origin, get_type_hints


def fail(name: str, value: Any, must_be: str, hint: str = "") -> NoReturn:
    """Raise "NAME must be MUST_BE, got VALUE", with a hint behind it."""
    raise ValueError(f"{name} must be {must_be}, got {value!r}{hint}")


def suggestion(word: str, options: Iterable[str]) -> str:
    """The text "; did you mean 'x'?" with the most similar option, or "" if none is similar."""
    by_letters = {option.lower(): option for option in options}
    found = difflib.get_close_matches(word.lower(), by_letters, n=1, cutoff=0.5)
    return f"; did you mean {by_letters[found[0]]!r}?" if found else ""


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """`value`, if it is an int in `low..high` (bounds included)."""
    inside = isinstance(value, int) and not isinstance(value, bool) and value >= low
    if not inside or (high is not None and value > high):
        fail(name, value, f"an integer of at least {low}" if high is None else f"an integer in {low}..{high}")
    return value


def positive_int(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        fail(name, value, "a positive integer")
    return value


def positive_int_or_none(name: str, value: Any) -> int | None:
    return None if value is None else positive_int(name, value)


def height_width(name: str, value: Any) -> tuple[int, int]:
    """`value`, one length or [height, width], as a pair."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        return positive_int(f"{name}[0]", value[0]), positive_int(f"{name}[1]", value[1])
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        fail(name, value, "one length or [height, width]")
    return value, value


def non_negative_int(name: str, value: Any) -> int:
    return integer(name, value, low=0)


def resamples(name: str, value: Any) -> int:
    """`value` as the number of bootstrap resamples of an error bar, 0 for none. The error of one is undefined."""
    if non_negative_int(name, value) == 1:
        fail(name, 1, "0 or at least 2")
    return value


def number(name: str, value: Any, low: float | None = None, high: float | None = None) -> float:
    """`value` as a float in `[low, high]`; NaN, booleans and strings are refused."""
    is_number = isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)
    too_low = is_number and low is not None and value < low
    too_high = is_number and high is not None and value > high
    if not is_number or too_low or too_high:
        bounds = [f"at least {low:g}" if low is not None else "", f"at most {high:g}" if high is not None else ""]
        fail(name, value, " ".join(["a number", *filter(None, [" and ".join(filter(None, bounds))])]))
    return float(value)


def positive_number(name: str, value: Any) -> float:
    if number(name, value) <= 0:
        fail(name, value, "greater than 0")
    return float(value)


def boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        fail(name, value, "true or false")
    return value


def one_of(name: str, value: Any, options: Iterable[Any]) -> Any:
    options = list(options)
    if value not in options:
        hint = suggestion(value, [o for o in options if isinstance(o, str)]) if isinstance(value, str) else ""
        fail(name, value, f"one of {', '.join(map(str, options))}", hint)
    return value


Range = Callable[[str, Any], Any]
"""A check in an annotation: of the name and the value of a field."""


def integers(low: int, high: int | None = None) -> Range:
    return partial(integer, low=low, high=high)


def numbers(low: float | None = None, high: float | None = None) -> Range:
    return partial(number, low=low, high=high)


def words(*options: str) -> Range:
    return partial(one_of, options=options)


PositiveInt = Annotated[int, positive_int]
NonNegativeInt = Annotated[int, non_negative_int]
Number = Annotated[float, number]
PositiveNumber = Annotated[float, positive_number]
NonNegativeNumber = Annotated[float, numbers(low=0)]
NumResamples = Annotated[int, resamples]
Share = Annotated[float, numbers(0, 1)]
Limit = Annotated[float, numbers(low=0)]
"""As NonNegativeNumber, but infinity is no mistake."""


def fields(part: Any, prefix: str = "") -> None:
    """What `Checked` does, for a `__post_init__` with more to check. prefix: before the names of fields in messages."""
    hints = annotations_of(part.__class__)
    for field in dataclasses.fields(part):
        annotated(f"{prefix}{field.name}", getattr(part, field.name), hints[field.name])


class Checked:
    """A dataclass whose constructor checks its fields by their annotations, as `steps: PositiveInt`."""

    def __post_init__(self) -> None:
        fields(self)


@cache
def annotations_of(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def annotated(name: str, value: Any, hint: Any) -> None:
    """Check a value by an annotation, and each item of a sequence. Of a union with None, the first type counts."""
    inner = get_args(hint)
    if get_origin(hint) is Annotated:
        inner[1](name, value)
    elif hint is bool:
        boolean(name, value)
    elif get_origin(hint) is Sequence and isinstance(value, Sequence):
        for each in value:
            annotated(name, each, inner[0])
    elif value is not None and NoneType in inner:
        annotated(name, value, inner[0])
