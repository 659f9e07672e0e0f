"""Where downloaded files are kept between runs: jars, fetched artifacts. Safe to delete at any time."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "MEDLOOP_CACHE"


def cache_directory() -> Path:
    """Return `MEDLOOP_CACHE`, or medloop's folder in the platform's user cache directory."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser().resolve()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "medloop"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medloop"
