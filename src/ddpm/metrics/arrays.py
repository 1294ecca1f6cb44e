"""An .npz file of numbers: written whole, and read as data, whoever wrote it."""

import math
import os
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from ddpm.base.atomic import atomic_write

MAX_INFLATED = 2**30
"""Bytes of all compressed arrays of a file together: a covariance of 2048 features has 2^25."""

MAX_HEADER = 2**14


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """As np.savez: not compressed, and the same arrays give the same bytes. On the disk when it returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial, open(partial, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())


def array_names(path: Path) -> set[str]:
    """Without reading them. ValueError where `path` is no zip file."""
    try:
        with ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except Exception as error:  # whatever a damaged or hostile file provokes
        raise unreadable(path, error) from None


def read_arrays(path: Path, names: set[str]) -> dict[str, np.ndarray]:
    """Those of `names` that are there, each held against its checksum. Nothing is unpickled."""
    try:
        with ZipFile(path) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            wanted = {name: entries[name] for name in names & entries.keys()}
            size = sum(entry.file_size for entry in wanted.values() if entry.compress_type != ZIP_STORED)
            if size > MAX_INFLATED:
                raise ValueError(f"it inflates to {size:,} bytes, and may to {MAX_INFLATED:,}")
            return {name: array_of(archive, entry, path.stat().st_size) for name, entry in wanted.items()}
    except Exception as error:  # whatever a damaged or hostile file provokes
        raise unreadable(path, error) from None


def array_of(archive: ZipFile, entry: ZipInfo, file_bytes: int) -> np.ndarray:
    if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"{entry.filename} is compressed by another method than deflate")
    if entry.compress_size > file_bytes:
        raise ValueError(f"{entry.filename} has {entry.compress_size:,} bytes in a file of {file_bytes:,}")
    with archive.open(entry) as file:
        beginning = BytesIO(file.read(MAX_HEADER))
    version = np.lib.format.read_magic(beginning)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(beginning)
    if dtype.hasobject:
        raise ValueError(f"{entry.filename} holds pickled objects, which are not read")
    if min(shape, default=0) < 0 or beginning.tell() + math.prod(shape) * dtype.itemsize != entry.file_size:
        raise ValueError(f"{entry.filename} has {entry.file_size:,} bytes, but says that it is {dtype} {list(shape)}")
    with archive.open(entry) as file:
        found = np.lib.format.read_array(file, allow_pickle=False)
        file.read(1)  # at the end of an entry its checksum is looked at
    return found


def unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} cannot be read as an .npz file of numbers: {error}")
