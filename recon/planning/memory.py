"""How much memory a run takes.

Input: ``Views``. Output: bytes. Does not: limit anything.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..posed import PosedViews
from ..records import Views

MAPS_BYTES = 60
"""Per working pixel of every input photo at once: depth, confidence, evidence and the head's attributes."""
FRUGAL_MAPS_BYTES = 52
"""The same in chunks, which let go of the evidence's residuals early."""
SUMS_BYTES = 80
"""Per working pixel: moments of blocks of every size; of all photos at once, or in chunks of one photo at a time."""
PRICES_BYTES = 24
"""Per working pixel of every photo: what cutting each block would bring, sorted."""
PIXEL_BYTES = 13
"""Per pixel of a decoded photo: three floats and whether it counts."""
FRUGAL_CACHE_BYTES = 48 << 20
NETWORK_BYTES = 220
"""Per working pixel of one photo and its neighbours while depth is estimated, times NETWORK_PHOTOS."""
NETWORK_PHOTOS = 6
PROGRAM_BYTES = 720_000_000
"""Libraries, networks and compiled kernels, once all are loaded."""
POLISHING_BYTES, POLISHED_PHOTO_BYTES, POLISHED_GAUSSIAN_BYTES = 525_000_000, 23, 740
"""Polishing: kernels and buffers beside what is loaded; per working pixel of every photo; per Gaussian with its moments."""


def resident_bytes() -> int:
    """Memory this process holds now; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, AttributeError):
        pass
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 0


def memory_needed(views: Views, start_bytes: int, *, chunked: bool, polished: int = 0) -> int:
    """Largest resident size of a run.

    Args:
        start_bytes: what the process holds already; libraries that are still to be loaded are added.
        chunked: make Gaussians one photo at a time.
        polished: Gaussians of a scene that is polished, which chunks do not change; 0 when it is not.
    """
    sizes = [view.width * view.height for view in views if not view.holdout] or [0]
    total, largest = sum(sizes), max(sizes)
    cache = min(FRUGAL_CACHE_BYTES if chunked else PosedViews.cache_bytes, total * PIXEL_BYTES)
    estimating = largest * NETWORK_BYTES * NETWORK_PHOTOS
    sums = (largest if chunked else total) * SUMS_BYTES
    making = total * ((FRUGAL_MAPS_BYTES if chunked else MAPS_BYTES) + PRICES_BYTES) + sums
    polishing = POLISHING_BYTES + total * POLISHED_PHOTO_BYTES + polished * POLISHED_GAUSSIAN_BYTES if polished else 0
    return int(max(start_bytes, PROGRAM_BYTES) + max(cache + max(estimating, making), polishing))
