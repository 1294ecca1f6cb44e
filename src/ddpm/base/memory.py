"""The one guard against a file or a setting that asks for more memory than there is."""

import os
import re
from pathlib import Path


def require_memory(num_bytes: int, what: str) -> None:
    """ValueError if they are not available. To be called before each allocation whose size a file chooses."""
    available = available_bytes()
    if num_bytes > available:
        raise ValueError(
            f"{what} takes {num_bytes / 1e9:,.1f} GB of memory, and only {available / 1e9:,.1f} GB are available"
        )


def available_bytes() -> int:
    """What can be allocated without swapping; where the system does not say, all of the machine's memory."""
    try:
        found = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return 1024 * int(found[1]) if found else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
