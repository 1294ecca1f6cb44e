"""generation.json describes the images in a folder, so that only the same generation is continued there."""

import itertools
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_only

from ddpm.base.atomic import write_atomically
from ddpm.base.differing import differing
from ddpm.base.nested import flatten
from ddpm.base.untrusted import json_file
from ddpm.checkpoint import groups
from ddpm.checkpoint.upgrade import upgrade

NOT_IDENTITY = ("made_with", "timings")  # fields of the record that are not part of the identity


class Timing(NamedTuple):
    """seconds: per image, of all devices together. num_images: number of measured images."""

    seconds: float
    num_images: int
    device: str


class GenerationRecord:
    """identity: all settings that determine the images, including `num_samples`, as plain containers. made_with:
    settings that change only rounding, such as the batch size; a record lists all that were used.
    """

    def __init__(
        self, folder: Path, identity: dict[str, Any], made_with: dict[str, Any], name: str = "generation.json"
    ) -> None:
        self.path = folder / name
        self.identity, self.made_with = identity, made_with

    def stored(self) -> dict[str, Any] | None:
        """The record in the folder, or None if there is none. Raises ValueError if it cannot be read."""
        if not self.path.exists():
            return None
        try:
            stored = json_file(self.path)
            stored["made_with"][0].keys()
            range(stored.get("num_samples", 0))
            [each["seconds"] / each["num_images"] for each in stored.get("timings", []) if each["device"]]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, ZeroDivisionError):
            raise ValueError(f"{self.path} is not a record of sample.py; {self._remedy()}") from None
        return stored

    def refuse_to_mix(self, grows: bool, has_images: bool) -> None:
        """Raise ValueError with the fields that differ if the folder has other images. grows: more are allowed."""
        stored = self.stored()
        if stored is None:
            if has_images:
                raise ValueError(f"{self.path.parent} has images, but no {self.path.name}; {self._remedy()}")
            return
        stored_fields, requested = self.fields(stored), self.fields(self.identity)
        fields = differing(requested, stored_fields)
        if grows and stored_fields.get("num_samples", 0) < requested.get("num_samples", 0):
            fields.pop("num_samples")
        if fields:
            lines = [f"  {name}: {was!r} in the folder, {wanted!r} requested" for name, (wanted, was) in fields.items()]
            raise ValueError("\n".join([f"{self.path.parent} contains another generation:", *lines, self._remedy()]))

    def fields(self, identity: dict[str, Any]) -> dict[str, Any]:
        """The identity with current, dotted names. Missing groups get the values that older records imply."""
        older = groups.old_config_defaults()
        older["cond"] = self.identity.get("cond", older["cond"])
        return flatten(upgrade({k: v for k, v in identity.items() if k not in NOT_IDENTITY}, older))

    def restore(self) -> None:
        """Write a record that is missing or unreadable, in a folder whose name identifies its images."""
        try:
            readable = self.stored() is not None
        except ValueError:
            readable = False
            self.path.unlink()
        if not readable and self.path.parent.is_dir():
            self.write()

    def earlier(self) -> list[dict[str, Any]]:
        """Other settings of rounding with which stored images were generated."""
        stored = self.stored()
        return [each for each in stored["made_with"] if each != self.made_with] if stored else []

    def timings(self) -> list[dict[str, Any]]:
        return (self.stored() or {}).get("timings", [])

    def timing(self) -> Timing | None:
        """The timing with the most images, or None."""
        most = max(self.timings(), key=lambda each: each["num_images"], default=None)
        return Timing(most["seconds"] / most["num_images"], most["num_images"], most["device"]) if most else None

    def add_timing(self, timing: Timing) -> None:
        """Combine a timing with an earlier one of the same circumstances, and store it."""
        before = self.timings()
        same = [each for each in before if self.made_with.items() <= each.items()]
        images = timing.num_images + sum(each["num_images"] for each in same)
        seconds = timing.seconds * timing.num_images + sum(each["seconds"] for each in same)
        others = [each for each in before if each not in same]
        self.write([*others, {**self.made_with, "num_images": images, "seconds": seconds}])

    def write(self, timings: list[dict[str, Any]] | None = None) -> None:
        """Write the record. timings: replace the stored ones; None keeps them."""
        content = {**self.identity, "made_with": [*self.earlier(), self.made_with]}
        timings = self.timings() if timings is None else timings
        if timings:
            content["timings"] = timings
        write_atomically(self.path, (json.dumps(content, indent=2) + "\n").encode())

    def _remedy(self) -> str:
        return f"choose another folder with out=, or delete {self.path.parent}"


def record_for(
    out: str | None, default: Path, about: tuple[dict[str, Any], dict[str, Any], str], grows: bool, results: str
) -> GenerationRecord:
    """The record in the folder `out`; None: in `default`, or in the first of default_2, default_3, ... without results
    of another generation. about: what else `GenerationRecord` gets. results: a file that a folder with results has."""
    if out:
        return GenerationRecord(Path(out), *about)
    for number in itertools.count(1):
        path = default.with_name(f"{default.name}_{number}") if number > 1 else default
        record = GenerationRecord(path, *about)
        with suppress(ValueError):
            record.refuse_to_mix(grows, has_images=(path / results).exists())
            break
    if path != default:
        rank_zero_only(print)(f"{default.name} has results of other settings; these go to {path.name}", flush=True)
    return record


def folder_of(identity: dict[str, Any], folder: Path, earlier: str) -> Path:
    """`folder`, or one beside it with a record of the same identity under names of an earlier version.

    earlier: glob pattern of the names of such folders.
    """
    if folder.exists():
        return folder
    for path in sorted(folder.parent.glob(earlier)):
        record = GenerationRecord(path, identity, {})
        try:
            stored = record.stored()
        except ValueError:
            continue
        if stored is not None and record.fields(stored) == record.fields(identity):
            return path
    return folder
