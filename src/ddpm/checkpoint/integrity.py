"""Whether a file is still what was written: against the sha256 beside it, or the archive's own CRCs if it has none."""

import hashlib
import zipfile
from pathlib import Path
from typing import BinaryIO


def sidecar(path: Path) -> Path:
    """Where the sha256 of a checkpoint stands, as `sha256sum --check` reads it."""
    return path.with_name(path.name + ".sha256")


def open_with_hash(path: Path) -> tuple[BinaryIO, bytes | None]:
    """A file, which may be removed or replaced from here on, and what its sidecar says."""
    real = path.resolve()
    written = sidecar(real)
    return open(real, "rb"), written.read_bytes()[:64] if written.exists() else None


def find_damage(path: Path) -> str | None:
    """What is wrong with a file of torch.save, or None."""
    if not path.is_file():
        return "it is not there"
    file, written = open_with_hash(path)
    with file:
        return damage_in(file, written)


def damage_in(file: BinaryIO, written: bytes | None) -> str | None:
    """As `damage`, of an open file. written: the sha256 that it was written with, if that is known."""
    file.seek(0)
    if written is not None:
        same = hashlib.file_digest(file, "sha256").hexdigest().encode() == written
        return None if same else "its sha256 is not the one it was written with"
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError) as error:
        return f"it is not whole: {error}"
    return f"{broken} in it is damaged" if broken else None
