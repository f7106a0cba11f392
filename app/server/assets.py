"""Scripts and styles of the page, sent from memory.

Input: requests for files of gradio's built page. Output: their bytes, compressed once. Does not: check sessions; make pages.

A first visit asks for eighty small files, five deep. Gradio compresses each of them anew for every visitor, which keeps a busy
machine from answering anything else for seconds; here a file is read and compressed when it is asked for first.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .access import App, Scope

BUILT = re.compile(r"/assets/([\w@.-]+-[\w-]{8,10}\.(js|css))", re.ASCII)
"""A script or style whose name has a hash of what is inside: it never changes. Everything else is left to gradio."""
WORTH_COMPRESSING = 400
"""Bytes; less is sent as it is."""
KEPT = ((b"cache-control", b"private, max-age=31536000, immutable"), (b"vary", b"accept-encoding"))
"""For a year, by the visitor's browser alone."""


@dataclass(frozen=True)
class Asset:
    """One file as it is sent."""

    plain: bytes
    packed: bytes
    """By gzip, or the same as ``plain`` where that is no smaller."""
    kind: str


class Assets:
    """ASGI: answers for files of a built page, and passes on whatever is not one.

    Args:
        app: asked for everything else.
        folder: with the files; what lies outside it, also by a link, is never sent.
    """

    def __init__(self, app: App, folder: Path) -> None:
        self._app, self._folder = app, folder.resolve()
        self._held: dict[str, Asset] = {}

    async def __call__(self, scope: Scope, receive: Callable, send: Callable) -> None:
        asked = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        named = BUILT.fullmatch(scope["path"]) if asked else None
        asset = self._asset(named[1]) if named else None
        if asset is None:
            await self._app(scope, receive, send)
            return
        zipped = asset.packed is not asset.plain and _takes_gzip(scope)
        body = asset.packed if zipped else asset.plain
        headers = [(b"content-type", asset.kind.encode()), (b"content-length", str(len(body)).encode()), *KEPT]
        headers += [(b"content-encoding", b"gzip")] if zipped else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body if scope["method"] == "GET" else b""})

    def _asset(self, name: str) -> Asset | None:
        """A file, read at its first use; None if there is none of that name."""
        held = self._held.get(name)
        if held is None:
            path = (self._folder / name).resolve()
            if path.parent != self._folder or not path.is_file():
                return None
            plain = path.read_bytes()
            packed = gzip.compress(plain, 6, mtime=0) if len(plain) >= WORTH_COMPRESSING else plain
            kind = "text/javascript" if name.endswith(".js") else "text/css"
            held = self._held[name] = Asset(plain, packed if len(packed) < len(plain) else plain, f"{kind}; charset=utf-8")
        return held


def _takes_gzip(scope: Scope) -> bool:
    """Whether the caller says that it unpacks gzip."""
    said = b",".join(value for name, value in scope["headers"] if name == b"accept-encoding").decode("latin-1").lower()
    weights = {part.partition(";")[0].strip(): part.partition(";")[2].replace(" ", "") for part in said.split(",")}
    return "gzip" in weights and weights["gzip"] not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
