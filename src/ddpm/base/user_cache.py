"""The folder of the user's cache, for values that take long to compute and can be computed again."""

import os
from pathlib import Path


def user_cache(name: str) -> Path:
    """`name` in $DDPM_CACHE, else in $XDG_CACHE_HOME/ddpm, else in ~/.cache/ddpm."""
    if os.environ.get("DDPM_CACHE"):
        return Path(os.environ["DDPM_CACHE"]).expanduser() / name
    shared = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(shared) / "ddpm" / name
