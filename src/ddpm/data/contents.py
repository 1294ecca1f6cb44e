"""What an opened source has, in words and numbers: its classes, and the files that are no images."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from ddpm.base import check
from ddpm.base.untrusted import printable
from ddpm.data.sources.base import Images

MAX_CLASSES_PER_IMAGE = 1000
"""More classes have no images: their labels are other numbers, as of files."""


def count_classes(labels: Tensor, class_names: Sequence[str], name: str) -> int | None:
    """From the names or the largest label; None without labels.

    Raises ValueError if nearly all of these classes have no image.
    """
    largest, num = int(labels.max()), len(labels)
    if not class_names and largest >= MAX_CLASSES_PER_IMAGE * num:
        raise ValueError(
            f"data={name} has the label {largest:,}, which would make {largest + 1:,} classes of {num:,} images; "
            "number the classes 0, 1, 2, ..., without gaps"
        )
    return len(class_names) or (largest + 1 if largest >= 0 else None)


def check_classes(images: Images, num_classes: int | None, name: str) -> None:
    """Raise ValueError if the labels are not those of `num_classes` classes. None: any number."""
    largest, names = int(images.labels.max()), len(images.class_names)
    if num_classes is not None and (largest >= num_classes or names not in (0, num_classes)):
        check.fail("data.num_classes", num_classes, f"{names or largest + 1}, as the labels of {name} require")


def describe(images: Images) -> str:
    """The classes and what was passed over, each after a comma; empty if there is nothing to say."""
    classes, others = describe_classes(images), getattr(images, "passed_over", {})
    passed_over = f", passed over: {describe_counts(others)}" if others else ""
    return f"{f', {classes}' if classes else ''}{passed_over}"


def describe_classes(images: Images, most: int = 10) -> str:
    """As "3 classes (a: 20, b: 12, c: 8)", with the number of images of each; empty without labels. most: listed."""
    found = images.labels[images.labels >= 0]
    labels, numbers = (each.tolist() for each in found.unique(return_counts=True))
    if not labels:
        return ""
    names = {label: printable(name) for label, name in enumerate(images.class_names)}
    counts = ", ".join(f"{names.get(k, k)}: {num:,}" for k, num in zip(labels[:most], numbers[:most], strict=True))
    more = ", ..." if len(labels) > most else ""
    without = len(images.labels) - len(found)
    unlabelled = f", {without:,} images without a class" if without else ""
    return f"{len(names) or len(labels)} classes ({counts}{more}){unlabelled}"


def describe_counts(counts: Mapping[str, int]) -> str:
    """As "156 other files (40 .heic, 39 .npy and 2 more kinds)"."""
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    named = ", ".join(f"{number:,} {kind}" for kind, number in ordered[:5])
    more = f" and {len(ordered) - 5} more kinds" if len(ordered) > 5 else ""
    return f"{sum(counts.values()):,} other files ({named}{more})"
