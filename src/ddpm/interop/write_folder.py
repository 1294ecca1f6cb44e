"""Atomic writes of folders: filled under a temporary name, synced, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddpm.base.atomic import remove_abandoned_files, sync
from ddpm.base.system_errors import naming


@contextmanager
def write_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to `path` at the end, and removed after an error.

    path: must not exist, or be an empty folder; otherwise ValueError is raised first.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"out must be a folder that does not exist, got {str(path)!r}; remove it or choose another")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.{os.getpid()}.partial"
    try:
        with naming(path, partial):
            partial.mkdir()
            remove_abandoned_files(partial)
            yield partial
            for each in (*partial.rglob("*"), partial):
                sync(each)
            os.replace(partial, path)
            sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
