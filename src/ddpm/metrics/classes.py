"""Requested classes of samples and labels of real images, for scores that need them."""

import torch
from torch import Tensor

from ddpm.metrics.score import FeatureSet


def refuse_unlabelled_samples(labels: Tensor | None, score: str) -> None:
    """labels: int64 `[N]`, the requested classes of samples, -1 for none. score: its name in the error."""
    num = -1 if labels is None else int((labels < 0).sum())
    if num != 0:
        whose = "have no requested class" if num < 0 or num == len(labels) else f"include {num} without one"
        raise ValueError(
            f"{score} needs to know the requested class of each image, and the generated images {whose}; choose "
            "metric=fid, or a model with cond=class and without class=none"
        )


def refuse_unlabelled_real(real: FeatureSet, score: str) -> None:
    """Raise ValueError unless each image has a label."""
    whose = "these real images do not have"
    if real.labels is not None:
        missing = (real.labels < 0).nonzero()[:, 0].tolist()
        if not missing:
            return
        if len(missing) < len(real.labels):
            some = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
            whose = f"{len(missing):,} of {len(real.labels):,} real images do not have: numbers {some}"
    raise ValueError(f"{score} needs labels, which {whose}; choose metric=fid, or other labels with data.labels")


def requested_classes(real: FeatureSet, generated: FeatureSet, score: str) -> list[int]:
    """The requested classes of samples; ValueError if one of them has no real image."""
    refuse_unlabelled_samples(generated.labels, score)
    refuse_unlabelled_real(real, score)
    requested = generated.labels.unique()
    strangers = requested[~torch.isin(requested, real.labels)]
    if len(strangers):
        raise ValueError(f"{score}: class {int(strangers[0])} was requested, but no real image has it")
    return requested.tolist()


def select_classes(images: FeatureSet, classes: list[int]) -> FeatureSet:
    """Rows and labels of the images of some classes."""
    return images.only(torch.isin(images.labels, torch.tensor(classes, device=images.labels.device)))


def describe_classes(labels: Tensor) -> str:
    """ "classes 0 to 9, 50 each", for requested labels int64 `[N]`; "no class" if all are -1."""
    requested, counts = labels.unique(return_counts=True)
    if (requested < 0).all():
        return "no class"
    first, last = int(requested[0]), int(requested[-1])
    if len(requested) == 1:
        return f"class {first}"
    whole = len(requested) == last - first + 1 and first >= 0
    names = f"{first} to {last}" if whole else ", ".join("none" if k < 0 else str(k) for k in requested.tolist())
    least, most = int(counts.min()), int(counts.max())
    return f"classes {names}, {least if least == most else f'{least} to {most}'} each"
