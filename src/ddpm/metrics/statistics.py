"""Mean and covariance of reference features in .npz files. The keys are `mu` and `sigma` as in pytorch-fid, EDM and
guided diffusion, and guided diffusion's `mu_s` and `sigma_s` for the spatial layer. We add `num` and `about`."""

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.lib.npyio import NpzFile

from ddpm.base import check
from ddpm.base.atomic import atomic_write
from ddpm.base.file_kind import explain_numpy
from ddpm.base.memory import require_memory
from ddpm.base.untrusted import json_data
from ddpm.metrics.score import Moments

ENDINGS = {"pooled": "", "spatial": "_s"}
"""Suffix of the keys by layer. Other layers, which only this program writes, have _LAYER."""

ROUNDING = 1e-6
"""Tolerance for symmetry and negative eigenvalues of float32 covariances, relative to the largest entry."""


def write_statistics(path: str | Path, moments: Mapping[str, Moments], about: Mapping[str, str]) -> None:
    """moments: by layer, all of the same images. about: description of these, as texts; other programs ignore it.

    The file is written atomically and uncompressed: 34 MB for a layer of 2048 features.
    """
    check_suffix(Path(path))
    write_arrays(Path(path), moments_to_arrays(moments, about))


def read_statistics(path: str | Path) -> tuple[dict[str, Moments], dict[str, str]]:
    """Moments by layer, float64, and `about`. In files of other programs, `about` is empty and num is 0.

    ValueError unless every covariance is finite, symmetric and positive semidefinite up to rounding.
    """
    path = Path(path)
    check_suffix(path)
    if not path.is_file():
        raise ValueError(f"{path} must be an .npz file of mu and sigma, and does not exist")
    names = array_names(path)
    if "mu" not in names:
        found = ", ".join(sorted(names)[:10]) or "nothing"
        raise ValueError(f"{path} must hold mu [d] and sigma [d, d], and holds {found}")
    return from_arrays(read_arrays(path, statistics_names(names)), str(path))


def holds_statistics(path: str | Path) -> bool:
    """Whether `path` is an .npz file with mu and sigma. Files of guided diffusion may have images (arr_0) too."""
    path = Path(path)
    return path.suffix == ".npz" and path.is_file() and {"mu", "sigma"} <= array_names(path)


def holds_images(path: Path) -> bool:
    """Whether an .npz file has images (arr_0), as the reference batches of guided diffusion beside mu and sigma."""
    return "arr_0" in array_names(path)


def check_suffix(path: Path) -> None:
    if path.suffix != ".npz":
        check.fail("the path of statistics", str(path), "one that ends in .npz")


def statistics_names(names: set[str]) -> set[str]:
    """Names of the arrays of an .npz file that belong to statistics."""
    return {name for name in names if name in ("mu", "sigma", "num", "about") or name.startswith(("mu_", "sigma_"))}


def moments_to_arrays(moments: Mapping[str, Moments], about: Mapping[str, str]) -> dict[str, np.ndarray]:
    arrays = {}
    for layer, of in moments.items():
        ending = ENDINGS.get(layer, f"_{layer}")
        arrays[f"mu{ending}"] = of.mean.detach().cpu().double().numpy()
        arrays[f"sigma{ending}"] = of.covariance.detach().cpu().double().numpy()
    nums = {of.num for of in moments.values()}
    if len(nums) > 1:
        check.fail("moments", sorted(nums), "of the same number of images in every layer")
    text = json.dumps(dict(about), sort_keys=True)
    return {**arrays, "num": np.array(nums.pop() if nums else 0, dtype=np.int64), "about": np.array(text)}


def from_arrays(arrays: Mapping[str, np.ndarray], where: str) -> tuple[dict[str, Moments], dict[str, str]]:
    """Moments by layer, and `about`. where: name of the file in errors."""
    num = arrays.get("num", np.array(0))
    if num.shape != () or num.dtype.kind not in "iu" or num < 0:
        raise ValueError(f"{where}: num must be the number of images, and is {num.dtype} {list(num.shape)}")
    text = arrays.get("about", np.array("{}"))
    if text.shape != () or text.dtype.kind != "U":
        raise ValueError(f"{where}: about must be a text, and is {text.dtype} {list(text.shape)}")
    about = json_data(str(text), f"{where}: about")
    if not isinstance(about, dict) or not all(isinstance(value, str) for value in about.values()):
        raise ValueError(f"{where}: about must be a JSON object of texts")
    layers = {ending: layer for layer, ending in ENDINGS.items()}
    endings = sorted(name.removeprefix("mu") for name in arrays if name == "mu" or name.startswith("mu_"))
    moments = {layers.get(ending, ending[1:]): one_layer(arrays, ending, int(num), where) for ending in endings}
    return moments, about


def one_layer(arrays: Mapping[str, np.ndarray], ending: str, num: int, where: str) -> Moments:
    names = f"mu{ending}", f"sigma{ending}"
    if names[1] not in arrays:
        raise ValueError(f"{where} holds {names[0]} without {names[1]}")
    for name in names:
        if arrays[name].dtype.kind != "f":
            raise ValueError(f"{where}: {name} must be floating-point numbers, and is {arrays[name].dtype}")
    mu, sigma = (np.ascontiguousarray(arrays[name], dtype=np.float64) for name in names)
    if mu.ndim != 1 or len(mu) == 0 or sigma.shape != (len(mu),) * 2:
        raise ValueError(
            f"{where}: {names[0]} must be [d] and {names[1]} [d, d], and they are {list(mu.shape)} and "
            f"{list(sigma.shape)}"
        )
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise ValueError(f"{where}: {names[0]} and {names[1]} must be finite, and are not")
    largest = np.abs(sigma).max()
    if np.abs(sigma - sigma.T).max() > ROUNDING * largest:
        raise ValueError(f"{where}: {names[1]} must be symmetric, as a covariance is, and is not")
    covariance = torch.from_numpy((sigma + sigma.T) / 2)  # exact if it was symmetric
    slack = ROUNDING * largest * torch.eye(len(mu), dtype=torch.float64)
    if largest > 0 and torch.linalg.cholesky_ex(covariance + slack).info != 0:
        raise ValueError(f"{where}: {names[1]} must have no negative eigenvalue, as a covariance")
    return Moments(num, torch.from_numpy(mu.copy()), covariance)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by np.savez and fsync: uncompressed, with the same bytes for the same arrays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial, open(partial, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())


def array_names(path: Path) -> set[str]:
    """The names, without reading the arrays. ValueError if `path` is not an .npz file."""
    with opened(path) as arrays:
        return set(arrays.files)


def read_arrays(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """The arrays of `names` that exist, verified by checksums. Nothing is unpickled."""
    with opened(path) as arrays:
        wanted = set(names) & set(arrays.files)
        sizes = [arrays.zip.getinfo(f"{name}.npy").file_size for name in wanted]
        require_memory(sum(sizes), "what it inflates to")
        return {name: arrays[name] for name in wanted}


@contextmanager
def opened(path: Path) -> Iterator[NpzFile]:
    if not path.is_file():
        raise ValueError(f"{path} must be an .npz file, and is something else")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except Exception as error:  # any error of a damaged or hostile file
        raise ValueError(f"{path} cannot be read as an .npz file of numbers: {explain_numpy(error)}") from None
