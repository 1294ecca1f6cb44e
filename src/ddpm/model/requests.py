"""Convert requested classes or captions to conditions of samples."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm.diffusion.conditions.base import LABEL, ClassLabel, Condition, PromptCondition


class Requested(NamedTuple):
    """rows: conditions `[K, ...]`; sample i uses row i modulo K. names: name of each row. about: for the record.
    captions: text of each row, if it is requested by texts."""

    rows: dict[str, Tensor]
    names: list[str]
    about: dict[str, Any]
    captions: Sequence[str] | None = None


def resolve_request(condition: Condition, label: Any, prompt: str | Sequence[str] | None, otherwise: str) -> Requested:
    """label: a class or a list of classes. prompt: a text or a list of texts. If both are None, `otherwise` is
    requested: `all` classes and captions, or `none`. Raises ValueError."""
    if prompt is not None and not isinstance(condition, PromptCondition):
        raise ValueError("prompt has no effect on a model without captions (cond=caption); leave it out")
    labels = sample_labels(label, condition, otherwise)
    if labels is not None:
        names = [condition.name(each) for each in labels]
        return Requested({LABEL: torch.tensor(labels)}, names, {"class": names})
    if not isinstance(condition, PromptCondition):
        return Requested({}, [""], {})
    if prompt is None:
        prompt = condition.default_prompts if otherwise == "all" else ""
    rows, names = condition.resolve(prompt)
    texts = [prompt] if isinstance(prompt, str) else prompt
    return Requested(rows, names, {"prompt": names}, [str(text) for text in texts])


def sample_labels(choice: Any, condition: Condition, otherwise: str = "all") -> list[int] | None:
    """The labels through which samples cycle; None without classes. choice: `class` of a command. Raises ValueError."""
    if not isinstance(condition, ClassLabel):
        if choice is not None:
            raise ValueError(f"class={choice} has no effect on a model without classes; leave it out")
        return None
    labels = condition.from_request(("none" if condition.dropout == 1 else otherwise) if choice is None else choice)
    if condition.dropout == 1 and max(labels) >= 0:
        raise ValueError(
            f"class={choice} has no effect on a model that was trained without labels (cond.dropout=1); leave it out"
        )
    return labels
