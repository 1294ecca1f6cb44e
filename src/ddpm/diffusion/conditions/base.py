"""The interface of conditions; no condition, a class, and combinations of conditions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Cond

LABEL = "label"
"""Name of the condition that holds the class: int64 `[B]`, -1 for none."""

CONCAT = "concat"
"""Name of the condition that is concatenated to x_t: `[B, c, h, w]`, at most as large as x_t."""


class Condition(Protocol):
    """dropout: the share of training images without condition, so that the network learns the unconditional model too.

    needs_images: whether the condition can only be computed from real images. It then has an attribute `tasks`, a text
    with the tasks that give it images. reads_images: whether `of` reads the images of a batch, if it has some.
    """

    @property
    def needs_images(self) -> bool: ...

    @property
    def reads_images(self) -> bool: ...

    @property
    def dropout(self) -> float: ...

    @property
    def network_settings(self) -> Mapping[str, Any]:
        """Arguments that a network must be built with to take this condition, as {"num_classes": 10}."""
        ...

    def of(self, batch: Mapping[str, Tensor]) -> Cond:
        """The conditions of a batch of images, or of samples that have a label but no image yet."""
        ...

    def unconditional(self, cond: Cond) -> Cond:
        """`cond` with this condition dropped; other conditions are unchanged."""
        ...

    def default_conditions(self, ids: Tensor) -> Cond:
        """The conditions of the samples with the numbers `ids`, int64 `[B]`, unless a command requests others."""
        ...


@runtime_checkable
class PromptCondition(Protocol):
    """A condition whose samples are requested by text."""

    @property
    def default_prompts(self) -> Sequence[str]: ...

    def resolve(self, prompts: str | Sequence[str]) -> tuple[dict[str, Tensor], list[str]]:
        """The conditions of one or several prompts, a row each, and a name for each row. Raises ValueError."""
        ...


def drop_conditions(condition: Condition, cond: Cond, draws: Draws) -> Cond:
    """Drop the condition of each training image with probability `dropout`, by the image's own random numbers."""
    if condition.dropout == 0 or not cond:
        return cond
    hidden = draws.uniform("condition") < condition.dropout
    unconditional = condition.unconditional(cond)
    return {name: torch.where(expand_like(hidden, value), unconditional[name], value) for name, value in cond.items()}


def expand_like(values: Tensor, like: Tensor) -> Tensor:
    """`values` `[B]` reshaped to `[B, 1, ...]`, to broadcast with `like` `[B, ...]`."""
    return values.view(-1, *[1] * (like.ndim - 1))


class ImageCondition:
    """A condition that is computed from real images, which `tasks` gives it."""

    needs_images: ClassVar[bool] = True
    reads_images: ClassVar[bool] = True
    tasks: ClassVar[str]

    def default_conditions(self, ids: Tensor) -> Cond:
        raise NotImplementedError(f"{type(self).__name__} has no condition without real images (needs_images)")


@dataclass(frozen=True)
class NoCondition:
    """No condition: the network takes only x_t and the time."""

    needs_images: ClassVar[bool] = False
    reads_images: ClassVar[bool] = False
    dropout: ClassVar[float] = 0.0
    network_settings: ClassVar[Mapping[str, Any]] = {}

    def of(self, batch: Mapping[str, Tensor]) -> Cond:
        return {}

    def unconditional(self, cond: Cond) -> Cond:
        return cond

    def default_conditions(self, ids: Tensor) -> Cond:
        return {}


@dataclass(frozen=True)
class ClassLabel:
    """The class. names: names of the classes, if any. dropout: 0.1 in Ho and Salimans 2022, 0 in ADM.

    A label of -1 adds nothing to the time embedding, so a network that never gets a label equals a network without
    classes. Ho and Salimans learn a vector for it. This is equivalent, because the bias of the time embedding and the
    class embeddings can absorb that vector.
    """

    num_classes: check.PositiveInt
    dropout: check.Share
    names: Sequence[str] | None = None
    needs_images: ClassVar[bool] = False
    reads_images: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check.fields(self)
        if self.names and len(self.names) != self.num_classes:
            check.fail("names", list(self.names), f"one for each of the {self.num_classes} classes")

    @property
    def network_settings(self) -> Mapping[str, Any]:
        return {"num_classes": self.num_classes}

    def of(self, batch: Mapping[str, Tensor]) -> Cond:
        return {LABEL: batch["label"]}

    def unconditional(self, cond: Cond) -> Cond:
        return {**cond, LABEL: torch.full_like(cond[LABEL], -1)}

    def default_conditions(self, ids: Tensor) -> Cond:
        """Cycles through the classes."""
        return {LABEL: ids % self.num_classes}

    def name(self, label: int) -> str:
        return "none" if label < 0 else self.names[label] if self.names else str(label)

    def from_request(self, choice: Any) -> list[int]:
        """The labels of a request: `all`, `none`, a number or a name, or a list of these."""
        if choice == "all":
            return list(range(self.num_classes))
        choices = choice if isinstance(choice, Sequence) and not isinstance(choice, str) else [choice]
        if not choices:
            check.fail("class", choice, "all, none, a class or a list of classes")
        return [self._label(each) for each in choices]

    def _label(self, choice: Any) -> int:
        names = list(self.names or [])
        if str(choice) in names:  # before numbers: names may be digits
            return names.index(str(choice))
        if choice is None or choice == "none":
            return -1
        if isinstance(choice, int) and not isinstance(choice, bool) and 0 <= choice < self.num_classes:
            return choice
        named = [name for name in names if not name.isdigit()]
        known = f"0 to {self.num_classes - 1}" + (f" or one of {', '.join(named)}" if named else "")
        return check.fail("class", choice, f"{known}, or all, or none", check.suggestion(str(choice), named))


@dataclass(frozen=True)
class Several:
    """Several conditions at once, which are dropped together.

    parts: conditions by any names, with dropout=0 each. dropout: share of images whose conditions are all dropped.
    """

    parts: Mapping[str, Condition]
    dropout: check.Share = 0.0

    def __post_init__(self) -> None:
        check.fields(self)
        for name, part in self.parts.items():
            if part.dropout:
                check.fail(f"parts.{name}.dropout", part.dropout, "0, since the dropout of cond drops all parts")
        inputs = [name for part in self.parts.values() for name in part.network_settings]
        if len(set(inputs)) < len(inputs):
            check.fail("parts", list(self.parts), "conditions with different inputs of the network")

    @property
    def needs_images(self) -> bool:
        return any(part.needs_images for part in self.parts.values())

    @property
    def reads_images(self) -> bool:
        return any(part.reads_images for part in self.parts.values())

    @property
    def network_settings(self) -> Mapping[str, Any]:
        return {name: value for part in self.parts.values() for name, value in part.network_settings.items()}

    def of(self, batch: Mapping[str, Tensor]) -> Cond:
        return {name: value for part in self.parts.values() for name, value in part.of(batch).items()}

    def unconditional(self, cond: Cond) -> Cond:
        for part in self.parts.values():
            cond = part.unconditional(cond)
        return cond

    def default_conditions(self, ids: Tensor) -> Cond:
        return {name: value for part in self.parts.values() for name, value in part.default_conditions(ids).items()}
