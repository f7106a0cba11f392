"""What of gradio may be reached, and with what.

Input: requests that passed the guard. Output: those of our own routes and of the few gradio routes a page needs. Does not: check
sessions.

Gradio serves much more than a page (proxies, screen recordings, history, monitoring); what is not listed here does not exist. Files
named in a call must be the caller's own, and a gradio session belongs to the owner who used it first.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

from .access import App, Scope, refuse
from .refusals import Refused
from .service import Service

PREFIX = "/gradio_api"
OWN = re.compile(r"/(api|jobs|uploads|view)(/.*)?|/login|/gradio_api/(upload|upload_progress|file=.*)", re.DOTALL)
"""Routes of ours."""
READ = re.compile(
    r"/|/config/?|/theme\.css|/robots\.txt|/favicon\.ico|/manifest\.json|/(assets|static|svelte)/[\w./@-]+|/login_check/?"
    r"|/gradio_api/(info/?|app_id/?|user/?|theme\.css|startup-events|login_check/?|queue/(data|status)|heartbeat/\w{1,64}"
    r"|call/\w{1,64}/\w{1,64})"
)
CALLED = re.compile(r"/gradio_api/(queue/join/?|call/\w{1,64}/?|cancel|reset/?)")
LARGEST_CALL = 4 << 20
"""Bytes of a call; files are sent before it, on their own."""
MOST_SESSIONS = 20_000


class GradioDoor:
    """ASGI: between the guard and gradio.

    Args:
        app: our routes, and gradio below them.
        service: knows whose files are whose.
        rewrite: takes outside references out of gradio's HTML.
    """

    def __init__(self, app: App, service: Service, rewrite: Callable[[bytes], bytes] | None = None) -> None:
        self._app, self._service, self._rewrite = app, service, rewrite
        self._sessions: OrderedDict[str, str] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Callable, send: Callable) -> None:
        path = scope.get("path", "")
        if scope["type"] == "lifespan" or (scope["type"] in ("http", "websocket") and OWN.fullmatch(path)):
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await refuse(scope, receive, send, 403, "There is nothing here.")
            return
        owner, method = scope["state"]["owner"], scope["method"]
        if method in ("GET", "HEAD") and READ.fullmatch(path) and ".." not in path:
            hashes = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [])
            hashes += [path.rpartition("/")[2]] if path.startswith(PREFIX + "/heartbeat/") else []
            if not all(self._belongs(value, owner) for value in hashes):
                await refuse(scope, receive, send, 403, "This session belongs to another visitor.")
                return
            rewrite = self._rewrite if path == "/" else None
            await self._app(scope, receive, send if rewrite is None else _rewriting(send, rewrite))
        elif method == "POST" and CALLED.fullmatch(path):
            try:
                body = await _read_all(receive)
                self._check_call(owner, body)
            except Refused as error:
                await refuse(scope, receive, send, error.status, f"{error.reason} {error.remedy}")
                return
            await self._app(scope, _replay(body, receive), send)
        else:
            await refuse(scope, receive, send, 404, "There is nothing here.")

    def _check_call(self, owner: str, body: bytes) -> None:
        """Refuse calls for somebody else's session or files.

        Raises:
            Refused: says which.
        """
        try:
            call = json.loads(body) if body else {}
        except (ValueError, RecursionError) as error:
            raise Refused("The call is not JSON.") from error
        if not isinstance(call, dict):
            raise Refused("The call is not JSON.")
        given = call.get("session_hash")
        if given is not None and not (isinstance(given, str) and self._belongs(given, owner)):
            raise Refused("This session belongs to another visitor.", "", 403)
        for named in files_in(call.get("data")):
            self._check_file(owner, named)

    def _check_file(self, owner: str, named: Any) -> None:
        """A file of a call lies among the owner's uploads, or in one of the owner's jobs."""
        if not isinstance(named, str):
            raise Refused("A file of the call has no path.")
        out = str(self._service.out) + "/"
        job_id, _, inside = named.removeprefix(out).partition("/") if named.startswith(out) else ("", "", "")
        if inside and not job_id.startswith("."):
            self._service.job_file(owner, job_id, inside)
        else:
            self._service.uploads.owned(owner, [named])

    def _belongs(self, session: str, owner: str) -> bool:
        """Whether a gradio session is the owner's; the first who uses it has it."""
        held = self._sessions.setdefault(session, owner)
        self._sessions.move_to_end(session)
        while len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return held == owner


def files_in(value: Any) -> Iterator[Any]:
    """Every path that gradio would open: of anything that looks like one of its file records, however deep."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if "path" in one and one["path"] is not None:
                yield one["path"]
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


async def _read_all(receive: Callable) -> bytes:
    pieces, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused("The call is cut off.")
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > LARGEST_CALL:
            raise Refused("The call is too long.", "", 413)
        more = message.get("more_body", False)
    return b"".join(pieces)


def _replay(body: bytes, receive: Callable) -> Callable:
    """Give a body that was read once more, then what comes after it."""
    given = False

    async def receiver() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiver


def _rewriting(send: Callable, rewrite: Callable[[bytes], bytes]) -> Callable:
    """Gather an HTML answer, change it, and send it whole."""
    start: dict[str, Any] = {}
    pieces: list[bytes] = []

    async def sender(message: Any) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            return
        pieces.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        headers = {name.lower(): value for name, value in start["headers"]}
        body = b"".join(pieces)
        if headers.get(b"content-type", b"").startswith(b"text/html") and b"content-encoding" not in headers:
            body = rewrite(body)
            kept = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
            start["headers"] = [*kept, (b"content-length", str(len(body)).encode())]
        await send(start)
        await send({"type": "http.response.body", "body": body})

    return sender
