"""A cache of features of reference images, so that each data set passes an extractor only once."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ddpm.base.user_cache import user_cache
from ddpm.metrics.bank import is_first_rank
from ddpm.metrics.extractors.base import Extractor
from ddpm.metrics.score import FeatureSet
from ddpm.metrics.statistics import (
    array_names,
    from_arrays,
    moments_to_arrays,
    read_arrays,
    statistics_names,
    write_arrays,
)

LAYOUT = 1
"""Version of the file layout. It is part of the key, so that files of other layouts are not used."""


class ReferenceCache:
    """One file KEY.npz for each set of images and extractor. Files are never removed automatically.

    Moments have the layout of `write_statistics`. A layer of d features takes 8 d^2 bytes for its moments (34 MB for
    Inception's 2048) and, if scores need the features of each image, 4 N d bytes more (410 MB for 50,000 images).
    Files are written atomically. If one cannot be read or written, a message is printed, and no error is raised.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = user_cache("references") if folder is None else Path(folder)

    def key(self, data_hash: str, extractor: Extractor) -> str:
        """sha256 of all that determines the features. data_hash: of the content of the images, in their order."""
        parts = [LAYOUT, data_hash, extractor.name, extractor.weights_hash, extractor.preprocessing]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def path(self, key: str) -> Path:
        return self.folder / f"{key}.npz"

    def get(self, key: str) -> dict[str, FeatureSet] | None:
        """The set of each layer on the CPU, or None if there is no readable file."""
        try:
            return read_sets(self.path(key)) if self.path(key).exists() else None
        except (ValueError, OSError) as error:
            report(f"cached features are damaged and will be computed again: {one_line(error)}")
            return None

    def put(self, key: str, sets: Mapping[str, FeatureSet]) -> None:
        """Add `sets` to the file, and keep what it has. Only the first rank writes."""
        if not is_first_rank():
            return
        path = self.path(key)
        try:
            known = read_sets(path) if path.exists() else {}
        except (ValueError, OSError):
            known = {}
        try:
            write_sets(path, known | {layer: join_features(of, known.get(layer)) for layer, of in sets.items()})
        except OSError as error:
            report(f"features of the reference are not cached: {one_line(error)}; set DDPM_CACHE to another folder")
            return
        report(f"features of the reference cached in {path} ({path.stat().st_size / 1e6:.0f} MB)")


def join_features(new: FeatureSet, known: FeatureSet | None) -> FeatureSet:
    """`new`, completed by moments or rows of `known` for the same images."""
    if known is None or known.num_images != new.num_images:
        return new
    moments = known.moments if new.moments is None else new.moments
    rows = known.rows if new.rows is None else new.rows
    return FeatureSet(new.num_images, moments, rows, new.ids, new.labels)


def write_sets(path: Path, sets: Mapping[str, FeatureSet]) -> None:
    """All layers have the same images, so ids and labels are written once."""
    first = next(iter(sets.values()))
    moments = {layer: of.moments for layer, of in sets.items() if of.moments is not None}
    arrays = moments_to_arrays(moments, {"layers": " ".join(sorted(sets))})
    arrays["num"] = np.array(first.num_images, np.int64)
    for name, numbers in (("ids", first.ids), ("labels", first.labels)):
        if numbers is not None:
            arrays[name] = numbers.cpu().numpy()
    for layer, of in sets.items():
        if of.rows is not None:
            arrays[f"rows_{layer}"] = of.rows.detach().cpu().float().numpy()
    write_arrays(path, arrays)


def read_sets(path: Path) -> dict[str, FeatureSet]:
    """Read a file of `write_sets`; ValueError if it is incomplete."""
    names = array_names(path)
    rows = {name for name in names if name.startswith("rows_")}
    arrays = read_arrays(path, statistics_names(names) | rows | ({"ids", "labels"} & names))
    moments, about = from_arrays(arrays, str(path))
    if "num" not in arrays or "layers" not in about:
        raise ValueError(f"{path} lacks the number of images or the names of layers")
    num = int(arrays["num"])
    for name, kind in {"ids": "int64", "labels": "int64", **dict.fromkeys(rows, "float32")}.items():
        if name in arrays and (arrays[name].dtype != kind or arrays[name].shape[:1] != (num,)):
            raise ValueError(f"{path}: {name} must be {kind} of {num} images")
    of_all = {name: torch.from_numpy(arrays[name]) for name in ("ids", "labels") if name in arrays}
    sets = {}
    for layer in about["layers"].split():
        its = arrays.get(f"rows_{layer}")
        if its is not None and not np.isfinite(its).all():
            raise ValueError(f"{path}: rows_{layer} must be finite, and is not")
        sets[layer] = FeatureSet(num, moments.get(layer), None if its is None else torch.from_numpy(its), **of_all)
    return sets


def one_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def report(line: str) -> None:
    if is_first_rank():
        print(line, flush=True)
