"""`recon cache`: what is kept between runs, and making room.

Input: words. Output: a table; fewer files. Does not: touch scenes, output folders or networks' weights.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from recon.capture.names import shown
from recon.errors import UserError
from recon.resume.places import CACHE_VARIABLE, LIMIT_VARIABLE, cache_limit_bytes, cache_root
from recon.resume.store import Entry, entries, make_room, remove

from .console import Quiet, answer, format_bytes, say

DAY_S = 86400.0


@dataclass(frozen=True, kw_only=True)
class CacheArguments:
    """Show what is kept between runs (results of stages, frames of videos, unpacked archives), or make room. Nothing in it is the
    only copy of anything: what is missing is computed again."""

    clear: Quiet = False
    """Delete everything in the cache."""
    older_than: float | None = None
    """Delete what was not used for this many days."""
    shrink_to: float | None = None
    """Delete what was not used for longest until the cache takes at most this many GB."""
    json: Quiet = False
    """Print the result as one JSON object on stdout."""


def cache(arguments: CacheArguments) -> int:
    """Run the command."""
    root = cache_root()
    if root is None:
        raise UserError(f"The cache is off ({CACHE_VARIABLE}).", f"Unset {CACHE_VARIABLE}, or set it to a folder.")
    kept, freed = list(entries(root)), 0
    doomed: list[Entry] = []
    if arguments.clear:
        doomed = kept
    elif arguments.older_than is not None:
        doomed = [entry for entry in kept if entry.used < time.time() - arguments.older_than * DAY_S]
    for entry in doomed:
        remove(entry)
        freed += entry.bytes
    if arguments.shrink_to is not None:
        freed += make_room(root, int(arguments.shrink_to * 1e9), fresh_s=0.0)
    left = list(entries(root))
    facts = {
        "folder": shown(root),
        "bytes": sum(entry.bytes for entry in left),
        "limit_bytes": cache_limit_bytes(),
        "entries": len(left),
        "freed_bytes": freed,
    }
    if arguments.json:
        answer(json.dumps(facts, indent=2))
        return 0
    if left:
        Console().print(table(left))
    size, most = format_bytes(facts["bytes"]), format_bytes(facts["limit_bytes"])
    say(f"{facts['folder']}: {size} of {most} ({LIMIT_VARIABLE} sets the limit)")
    if arguments.clear or arguments.older_than is not None or arguments.shrink_to is not None:
        say(f"{format_bytes(freed)} freed.")
    return 0


def table(left: Sequence[Entry]) -> Table:
    """One row per kind of thing kept."""
    drawn = Table()
    for column in ("kept", "entries", "size", "last used"):
        drawn.add_column(column)
    for stage in sorted({entry.stage for entry in left}):
        mine = [entry for entry in left if entry.stage == stage]
        days = (time.time() - max(entry.used for entry in mine)) / DAY_S
        last = "today" if days < 1 else f"{days:.0f} days ago"
        drawn.add_row(stage, str(len(mine)), format_bytes(sum(entry.bytes for entry in mine)), last)
    return drawn
