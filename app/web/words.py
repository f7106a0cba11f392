"""Words and pieces of HTML that several parts of the page use.

Input: records. Output: text and escaped HTML. Does not: trust a name: everything that came from outside goes through ``safe``.
"""

from __future__ import annotations

import html
import time
from collections.abc import Iterable

from recon.errors import UserError

from ..server.records import Estimate, JobView

STAGES = {
    "photos": ("Reading photos", "every photo is decoded and looked at"),
    "cameras": ("Finding cameras", "where each photo was taken from"),
    "depth": ("Estimating depth", "how far away every pixel is"),
    "gaussians": ("Building the scene", "depth becomes coloured Gaussians"),
    "polish": ("Polishing", "the scene is optimised against the photos"),
    "score": ("Scoring", "photos kept aside are compared"),
    "write": ("Writing", "files, pictures and the report"),
}
"""Stage -> what it is called here, what it does."""
STATES = {"waiting": "Waiting", "running": "Running", "done": "Done", "failed": "Failed", "stopped": "Stopped"}


def safe(text: object) -> str:
    """Escape what came from outside."""
    return html.escape(str(text), quote=True)


def duration(seconds: float) -> str:
    """Write a duration the way a person says it."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def size(count: float) -> str:
    """Write a file size in decimal units, as file managers do."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def when(seconds: float, now: float | None = None) -> str:
    """Say when something was, on the machine's clock."""
    then, today = time.localtime(seconds), time.localtime(time.time() if now is None else now)
    clock = time.strftime("%H:%M", then)
    if then[:3] == today[:3]:
        return f"today {clock}"
    return time.strftime("%d %b %Y, ", then).lstrip("0") + clock


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def estimate_words(estimate: Estimate | None) -> str:
    """About how long, and how much memory."""
    if estimate is None or not estimate.seconds:
        return ""
    unknown = [STAGES.get(name, (name,))[0].lower() for name, value in estimate.seconds.items() if value is None]
    rest = f" and {' and '.join(unknown)}, of which nothing is known yet" if unknown else ""
    return f"about {duration(estimate.total_s)}{rest}, {size(estimate.memory_bytes)} of memory"


def trouble(reason: str, remedy: str = "") -> str:
    """What went wrong and what to do."""
    todo = f"<p><b>What to do:</b> {safe(remedy)}</p>" if remedy else ""
    return f'<div class="trouble" role="alert"><p class="why">{safe(reason)}</p>{todo}</div>'


def told(error: UserError) -> str:
    return trouble(error.reason, error.remedy)


def listing(lines: Iterable[str], kind: str = "advice") -> str:
    """Sentences as a list; nothing when there are none."""
    items = "".join(f"<li>{safe(line)}</li>" for line in lines)
    return f'<ul class="{kind}">{items}</ul>' if items else ""


def badge(view: JobView) -> str:
    """A coloured word for the state of a job."""
    word = f"Waiting, number {view.position}" if view.state == "waiting" and view.position else STATES[view.state]
    return f'<span class="badge {view.state}">{word}</span>'
