"""What a person asks of samples, a class or words, as the conditions that samples take in turn."""

from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ddpm.diffusion.caption import WORDS, Caption
from ddpm.diffusion.condition import LABEL, ClassLabel, Condition


class Asked(NamedTuple):
    """rows: of conditions, sample i takes row i modulo their number. names: of the rows. about: for the record."""

    rows: dict[str, Tensor]
    names: list[str]
    about: dict[str, Any]


def asked_of(config: DictConfig, asked: Condition, otherwise: str) -> Asked:
    """What `class` or `prompt` of a command say; where they say nothing, `otherwise` is `all` classes or `none`."""
    if config.prompt is not None and not isinstance(asked, Caption):
        raise ValueError("prompt has no effect on a model that is told no words; leave it out")
    labels = sample_labels(config["class"], asked, otherwise)
    if labels is not None:
        names = [asked.name(label) for label in labels]
        return Asked({LABEL: torch.tensor(labels)}, names, {"class": names})
    if not isinstance(asked, Caption):
        return Asked({}, [""], {})
    prompts = OmegaConf.to_container(config.prompt) if OmegaConf.is_list(config.prompt) else config.prompt
    if prompts is None:
        prompts = list(asked.names) if otherwise == "all" else ""
    rows = asked.asked(prompts)
    names = [text or "none" for text in asked.text(rows[WORDS])]
    return Asked(rows, names, {"prompt": names})


def sample_labels(choice: Any, asked: Condition, otherwise: str = "all") -> list[int] | None:
    """The labels that samples take in turn; None where there is no class to ask for. choice: `class` of a command."""
    if not isinstance(asked, ClassLabel):
        if choice is not None:
            raise ValueError(f"class={choice} has no effect on a model that knows no classes; leave it out")
        return None
    labels = asked.asked(("none" if asked.dropout == 1 else otherwise) if choice is None else choice)
    if asked.dropout == 1 and max(labels) >= 0:
        raise ValueError(f"class={choice} asks a model that was never told a class (cond.dropout=1); leave it out")
    return labels
