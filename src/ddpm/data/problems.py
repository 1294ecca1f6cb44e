"""Images that cannot be used: which they are, and what their user reads about them."""

from typing import NamedTuple

import torch
from torch import Tensor

MAX_NAMED = 20
"""Broken images of one reason that an error names, and reasons."""
MAX_EXAMPLES = 3
"""Images of one size that does not fit that an error names."""


class Problem(NamedTuple):
    number: int  # of the image
    name: str
    reason: str  # what is wrong
    remedy: str = ""  # of an intact image that does not fit the settings
    remedy_if_all: str = ""  # see `Misfit`


def usable(num: int, problems: list[Problem], on_broken: str) -> Tensor:
    """int64, the numbers in 0..num-1 of images without a problem.

    Raises ValueError that lists the others with what helps. on_broken: of images that are broken or lack something, one
    of "stop", "skip" and "keep" (they may neither be skipped). Images that do not fit the settings are always refused.
    """
    misfits = [p for p in problems if p.remedy]
    broken = [p for p in problems if not p.remedy]
    parts = []
    if misfits:
        alike = {p.remedy_if_all for p in misfits} if len(misfits) == num else {""}
        remedies = [*dict.fromkeys(p.remedy for p in misfits), *(alike - {""} if len(alike) == 1 else ())]
        listed = list_problems(f"{len(misfits)} of {num} images do not fit the settings", misfits)
        parts.append(f"{listed}\nRemedy: {', or '.join(remedies)}")
    if broken and (on_broken != "skip" or len(broken) == num):
        can_skip = on_broken == "stop" and len(broken) < num
        listed = list_problems(f"{len(broken)} of {num} images cannot be used", broken)
        parts.append(f"{listed}\nRepair or remove them{', or leave them out: data.on_broken=skip' if can_skip else ''}")
    if parts:
        raise ValueError("\n".join(parts))
    mask = torch.ones(num, dtype=torch.bool)
    mask[[p.number for p in problems]] = False
    return mask.nonzero()[:, 0]


def list_problems(what: str, problems: list[Problem]) -> str:
    """A line for each reason with the names of its images."""
    names: dict[str, list[str]] = {}
    for problem in sorted(problems):
        names.setdefault(problem.reason, []).append(problem.name)
    most = MAX_EXAMPLES if all(problem.remedy for problem in problems) else MAX_NAMED
    lines = [f"  {shortened(each, most)}: {reason}" for reason, each in list(names.items())[:MAX_NAMED]]
    lines += [f"  and {len(names) - MAX_NAMED} more kinds"] if len(names) > MAX_NAMED else []
    return "\n".join([f"{what}:", *lines])


def shortened(names: list[str], most: int) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
