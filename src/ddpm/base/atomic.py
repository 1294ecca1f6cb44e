"""Atomic file writes: a file is written under a temporary name in the same folder, then renamed."""

import itertools
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ddpm.base.system_errors import naming

ABANDONED = 3600  # seconds
SEARCHED: set[Path] = set()

OWN_NAME = re.compile(r"\.(.+\.\d+|\d+\.ckpt)\.partial")
"""Temporary names of this project: with the number of a process or a checkpoint, unlike other .NAME.partial files."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` at the end. After an error or a kill, `path` is unchanged."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with naming(path, partial):
            yield partial
            remove_abandoned_files(partial)
            os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def partial_files(folder: Path) -> list[Path]:
    return [path for path in folder.glob(".*.partial") if OWN_NAME.fullmatch(path.name)]


def remove_partial_files(folder: Path) -> None:
    """Remove temporary files of processes that were killed while writing. This process must be the only writer."""
    for partial in partial_files(folder):
        if not partial.is_dir():
            partial.unlink(missing_ok=True)


def remove_abandoned_files(partial: Path) -> None:
    """Remove other temporary files and folders beside a new one that were last written an hour before it.

    Their processes were killed. Both times are by the clock of the file server. Each process searches a folder once.
    """
    folder = partial.parent.absolute()
    if folder in SEARCHED:
        return
    SEARCHED.add(folder)
    for other in partial_files(folder):
        with suppress(OSError):  # another process may remove it too
            newest = max(each.lstat().st_mtime for each in (other, *(other.rglob("*") if other.is_dir() else ())))
            if partial.lstat().st_mtime - newest > ABANDONED:
                shutil.rmtree(other) if other.is_dir() else other.unlink()


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
