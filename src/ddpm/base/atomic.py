"""Atomic file writes: a file is written under a temporary name in the same folder, then renamed."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` at the end. After an error or a kill, `path` is unchanged."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_partial_files(folder: Path) -> None:
    """Remove temporary files of processes that were killed while writing."""
    for partial in folder.glob(".*.partial"):
        partial.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a file to NAME.aside, or NAME.aside2, ... if there is one, and return its new path."""
    names = (f"{path.name}.aside{number if number > 1 else ''}" for number in itertools.count(1))
    aside = next(path.with_name(name) for name in names if not os.path.lexists(path.with_name(name)))
    return path.rename(aside)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` and create its folder. The file is synced, so it survives a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial, open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
