"""Whether a file is still what was written: against the sha256 beside it, or the archive's own CRCs if it has none."""

import hashlib
import zipfile
from pathlib import Path


def sidecar(path: Path) -> Path:
    """Where the sha256 of a checkpoint stands, as `sha256sum --check` reads it."""
    return path.with_name(path.name + ".sha256")


def damage(path: Path) -> str | None:
    """What is wrong with a file of torch.save, or None."""
    if not path.is_file():
        return "it is not there"
    written = sidecar(path.resolve())
    if written.exists():
        with open(path, "rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest().encode() == written.read_bytes()[:64]
        return None if same else "its sha256 is not the one it was written with"
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                return "it is compressed, which torch.save does not do"
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        return f"it is not whole: {error}"
    return f"{broken} in it is damaged" if broken else None
