"""An .npz file of numbers: written whole, and read as data, whoever wrote it."""

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from ddpm.base.atomic import atomic_write
from ddpm.base.memory import require_memory


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """As np.savez: not compressed, and the same arrays give the same bytes. On the disk when it returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial, open(partial, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())


def array_names(path: Path) -> set[str]:
    """Without reading them. ValueError where `path` is no .npz file."""
    with opened(path) as arrays:
        return set(arrays.files)


def read_arrays(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Those of `names` that are there, each held against its checksum. Nothing is unpickled."""
    with opened(path) as arrays:
        wanted = set(names) & set(arrays.files)
        require_memory(sum(arrays.zip.getinfo(f"{name}.npy").file_size for name in wanted), "what it inflates to")
        return {name: arrays[name] for name in wanted}


@contextmanager
def opened(path: Path) -> Iterator[NpzFile]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except Exception as error:  # whatever a damaged or hostile file provokes
        raise ValueError(f"{path} cannot be read as an .npz file of numbers: {error}") from None
