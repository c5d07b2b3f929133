"""Where the package keeps what it can make anew."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$UNCANNY_CACHE, or the package's part of the user's cache folder; it need not exist."""
    if chosen := os.environ.get("UNCANNY_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "uncannyvalley"
