"""Verification of checkpoint files by the sha256 file beside them, or by the CRCs of the archive if there is none."""

import hashlib
import zipfile
from pathlib import Path
from typing import BinaryIO


def sidecar(path: Path) -> Path:
    """Path of the sha256 file of a checkpoint, in the format of `sha256sum --check`."""
    return path.with_name(path.name + ".sha256")


def open_with_hash(path: Path) -> tuple[BinaryIO, bytes | None]:
    """The open file and its stored sha256 (None if there is none). The path may be removed or replaced afterwards."""
    real = path.resolve()
    written = sidecar(real)
    return open(real, "rb"), written.read_bytes()[:64] if written.is_file() else None


def find_damage(path: Path) -> str | None:
    """A description of the damage of a file of torch.save, or None if it is intact."""
    if not path.is_file():
        return "it is not a file" if path.exists() else "it does not exist"
    file, written = open_with_hash(path)
    with file:
        return damage_in(file, written)


def damage_in(file: BinaryIO, written: bytes | None) -> str | None:
    """As `find_damage`, for an open file. written: the stored sha256, as hexadecimal digits, or None."""
    file.seek(0)
    if written is not None:
        same = hashlib.file_digest(file, "sha256").hexdigest().encode() == written
        return None if same else "its sha256 differs from the stored one"
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError) as error:
        return f"it is incomplete: {error}"
    return f"{broken} in it is damaged" if broken else None
