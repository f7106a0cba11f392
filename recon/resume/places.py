"""Where things are kept between runs.

Input: the environment. Output: folders. Does not: decide what is kept.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE_VARIABLE = "RECON_CACHE"
"""Names the cache folder; the words "off", "none" and "0" turn the cache off."""
LIMIT_VARIABLE = "RECON_CACHE_GB"
"""Size limit of the cache in 10^9 bytes."""
USUAL_LIMIT_GB = 8.0


def cache_root() -> Path | None:
    """Folder of the cache: RECON_CACHE, else ``runs`` in the product's folder among the user's caches; None when it is off."""
    given = os.environ.get(CACHE_VARIABLE)
    if given is not None and given.strip().lower() in ("off", "none", "0", ""):
        return None
    if given:
        return Path(given).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "recon" / "runs"


def cache_limit_bytes() -> int:
    """Size the cache is kept under: RECON_CACHE_GB, else USUAL_LIMIT_GB."""
    try:
        return int(float(os.environ.get(LIMIT_VARIABLE) or USUAL_LIMIT_GB) * 1e9)
    except ValueError:
        return int(USUAL_LIMIT_GB * 1e9)
