"""Check that a file or a setting does not need more memory than is available."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path


def require_memory(num_bytes: int, what: str) -> None:
    """Raise ValueError if they are not available. Call it before each allocation whose size a file determines.

    what: subject of the error message.
    """
    available = available_bytes()
    if num_bytes > available:
        raise ValueError(
            f"{what} takes {num_bytes / 1e9:,.1f} GB of memory, but only {available / 1e9:,.1f} GB are available"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed. torch has no class for it on the CPU, only these texts."""
    texts = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(t in str(error) for t in texts))


def available_bytes() -> int:
    """Memory that can be allocated without swapping, within the limits of this process's control groups.

    If the system does not report it, the total memory.
    """
    try:
        found = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    free = 1024 * int(found[1]) if found else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([free, *group_bytes(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


FILES = {True: ("memory.max", "memory.current"), False: ("memory.limit_in_bytes", "memory.usage_in_bytes")}
"""Names of limit and use, in version 2 of control groups and in version 1."""


def group_bytes(groups: Path, root: Path) -> Iterator[int]:
    """What each control group of this process still allows, those above it included (SLURM, Docker, systemd).

    groups: lines NUMBER:CONTROLLERS:PATH. root: the folder where they are mounted.
    """
    with contextlib.suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            top = root / "memory" if controllers else root
            own = top / path.lstrip("/")
            for folder in (own, *own.parents):
                if folder.is_relative_to(top):
                    yield from free_in(folder, *FILES[not controllers])


def free_in(folder: Path, limit: str, used: str) -> Iterator[int]:
    """Nothing if the group has no limit. Cached files count as free, because the system drops them first."""
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        allowed, taken = (int((folder / name).read_text()) for name in (limit, used))
        cached = re.search(r"^(?:total_)?inactive_file (\d+)", (folder / "memory.stat").read_text(), re.MULTILINE)
        yield max(allowed - taken + (int(cached[1]) if cached else 0), 0)
