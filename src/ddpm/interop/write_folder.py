"""Folders that are either whole or not there: filled beside their place, synced, then renamed into it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddpm.base.atomic import sync


@contextmanager
def write_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` when the block ends well and vanishes when it does not.

    path: absent or an empty folder; anything else is refused before the block, since it would be lost.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"out must be a folder that is not there yet, got {str(path)!r}; remove it or give another")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.{os.getpid()}.partial"
    try:
        partial.mkdir()
        yield partial
        for each in (*partial.rglob("*"), partial):
            sync(each)
        os.replace(partial, path)
        sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
