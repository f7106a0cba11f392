"""viser's page with one script before its own: a page that lost its connection comes back as long as it can be seen.

Input: the answer that viser gives to a request for its page. Output: the same answer with the script in it.
Does not: change anything else that is served.

viser's page gives a first connection five seconds, and connects again only while ``document.hasFocus()``. A page inside another
one has no focus until somebody clicks into it, so a viewer that was busy for a moment would stay dead before the visitor's eyes.
"""

from __future__ import annotations

import gzip
from functools import lru_cache

from websockets.http11 import Response

__all__ = ["stay_connected"]

SCRIPT = b"""<script>
document.hasFocus = () => !document.hidden;
document.addEventListener("visibilitychange", () => window.dispatchEvent(new Event(document.hidden ? "blur" : "focus")));
</script>"""


def stay_connected(response: Response) -> None:
    """Put the script into a page; answers that are no page are left as they are."""
    if not response.headers.get("Content-Type", "").startswith("text/html"):
        return
    zipped = response.headers.get("Content-Encoding") == "gzip"
    response.body = _with_script(bytes(response.body), zipped)
    del response.headers["Content-Length"]
    response.headers["Content-Length"] = str(len(response.body))


@lru_cache(maxsize=4)
def _with_script(body: bytes, zipped: bool) -> bytes:
    page = gzip.decompress(body) if zipped else body
    before, head, after = page.partition(b"<head>")
    page = before + head + SCRIPT + after if head else SCRIPT + page
    return gzip.compress(page) if zipped else page
