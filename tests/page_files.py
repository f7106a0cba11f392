"""Files of a page for tests, and requests for them that no client would clean up first."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from app.server.assets import Assets

SCRIPT = b"export const word = 'stone';\n" * 40


async def nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b""}


def ask(assets: Assets, path: str, method: str = "GET", encoding: str = "gzip, br") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one request."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [(b"accept-encoding", encoding.encode())]}
    asyncio.run(assets(scope, nothing, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}, sent[1]["body"]


async def elsewhere(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b"passed on"})


def page_folder(tmp_path: Path) -> Assets:
    """A page's scripts, and what must not be sent with them."""
    folder = tmp_path / "assets"
    folder.mkdir()
    (folder / "index-DphvyggB.js").write_bytes(SCRIPT)
    (folder / "tiny-DphvyggC.css").write_bytes(b"a{}")
    (folder / "plain.js").write_bytes(b"its name says nothing of what is inside")
    (tmp_path / "secret-DphvyggB.js").write_bytes(b"secret")
    (folder / "link-DphvyggB.js").symlink_to(tmp_path / "secret-DphvyggB.js")
    (folder / "inner-DphvyggB.js").mkdir()
    return Assets(elsewhere, folder)
