"""Check that a file or a setting does not need more memory than is available."""

import os
import re
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


def available_bytes() -> int:
    """Memory that can be allocated without swapping; if the system does not report it, the total memory."""
    try:
        found = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return 1024 * int(found[1]) if found else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
