"""Errors of the system, such as a full disk: name the file, and say what was kept and what to do."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddpm.base.exit_codes import NO_SPACE

CHOOSE = "choose another path"
REMEDIES = {
    **dict.fromkeys(NO_SPACE, "free some space and run the same command again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), f"change its permissions or {CHOOSE}"),
    **dict.fromkeys(
        (errno.ENOENT, errno.EEXIST, errno.ENAMETOOLONG, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
        CHOOSE,
    ),
    **dict.fromkeys((errno.EIO, errno.ESTALE), "check the disk and run the same command again"),
}

FAILED_WRITE = re.compile(r"encoder error|\d+ requested and \d+ written")
"""Texts of errors of Pillow and NumPy that have no number."""


@contextmanager
def naming(path: Path, partial: Path | None = None) -> Iterator[None]:
    """Name the file in system errors that name none, as those of a full disk, and instead of its temporary file."""
    try:
        yield
    except OSError as error:
        if error.errno is None and FAILED_WRITE.search(str(error)):
            raise OSError(errno.EIO, str(error), str(path)) from error
        if error.errno is None:
            raise
        named = str(error.filename or path)
        named = named.replace(str(partial), str(path)) if partial else named
        raise OSError(error.errno, error.strerror or os.strerror(error.errno), named) from error


def require_writable(folder: Path, field: str) -> None:
    """Raise ValueError if files cannot be written in the folder, or if it cannot be created. field: that names it."""
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ValueError(f"{folder} cannot be written: change its permissions or choose another folder with {field}=")


def describe(error: BaseException, folder: str = "") -> str:
    """The message of an error. folder: where the command writes, for system errors that name no file."""
    where = getattr(error, "filename", None) or folder
    if not isinstance(error, OSError) or error.errno not in REMEDIES or not where:
        return str(error)
    return f"{where}: {error.strerror}; {REMEDIES[error.errno]}. All files written before are intact and kept"
