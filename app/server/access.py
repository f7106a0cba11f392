"""Who may come in: one guard before every route.

Input: a request of any kind. Output: the same with its owner in ``scope["state"]["owner"]``, or a refusal. Does not: serve.

Host and Origin are checked first (a page elsewhere must not speak to this server through the visitor's browser), then the
session. A session is a signed cookie, or, for programs, an Authorization header; it stands for an owner. Without --auth everybody
gets a session; with it only who knows the password. Every answer leaves with headers that keep the browser to this server.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import os
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

from recon.errors import UserError

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

COOKIE = "recon_session"
COOKIE_S = 400 * 86400
LOGIN_S = 14 * 86400
"""Seconds a session that began with a password lasts."""
SHORTEST_BEARER = 16
MOST_FAILURES, FAILURES_S = 10, 300.0
"""Wrong passwords in all, within so many seconds, before all are refused for a while."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
UNBELIEVED = (b"x-forwarded-host", b"x-forwarded-for", b"x-forwarded-prefix", b"forwarded", b"x-gradio-server")
"""Headers by which anybody could make pages name another place; they are dropped."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; frame-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""Nothing from elsewhere; the page and the viewer bring their scripts inline."""
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"SAMEORIGIN",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=()",
    b"x-dns-prefetch-control": b"off",
}


@dataclass(frozen=True, kw_only=True)
class Access:
    """What the guard goes by.

    Raises:
        UserError: other machines could come in without a password, and nobody said they may.
    """

    host: str = "127.0.0.1"
    """Address the server listens on."""
    auth: str = ""
    """USER:PASSWORD; empty asks for none."""
    open_to_all: bool = False
    """True: it was said that no password is wanted, although other machines can reach the server."""
    names: tuple[str, ...] = ()
    """Names under which the server is reached, beside loopback and plain addresses."""

    def __post_init__(self) -> None:
        user, colon, password = self.auth.partition(":")
        if self.auth and not (user and colon and password):
            raise UserError("--auth wants a name and a password.", "Give --auth USER:PASSWORD.")
        if not is_loopback(self.host) and not self.auth and not self.open_to_all:
            raise UserError(
                f"--host {self.host} lets other machines in, and no password is set.",
                "Add --auth USER:PASSWORD, or --no-auth if everybody who can reach this machine may use it.",
            )


def is_loopback(host: str) -> bool:
    """Tell addresses that only this machine reaches."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_secret(path: Path) -> bytes:
    """The key that signs sessions; made at the first start, readable for this user alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.stat().st_size != 32:
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        os.replace(partial, path)
    return path.read_bytes()


@dataclass
class Sessions:
    """Signs and reads sessions.

    Args:
        access: with or without a password.
        key: from ``read_secret``.
    """

    access: Access
    key: bytes
    _failures: list[float] = field(default_factory=list)
    _right: bytes = b""

    def __post_init__(self) -> None:
        self._user = self.access.auth.partition(":")[0]
        self._salt = secrets.token_bytes(16)
        self._digest = self._slow(self.access.auth)
        if self.access.auth:  # a changed password ends all sessions
            self.key = hmac.digest(self.key, b"auth" + hashlib.sha256(self.access.auth.encode()).digest(), "sha256")

    def begin(self) -> tuple[str, str]:
        """A new session: its owner, and the cookie's value."""
        who = f"u-{self._user}" if self.access.auth else secrets.token_hex(16)
        body = f"{base64.urlsafe_b64encode(who.encode()).decode()}.{int(time.time())}"
        return self._owner(who), f"{body}.{self._sign(body)}"

    def read(self, cookie: str) -> str | None:
        """The owner of a cookie's value; None when it is not ours or too old."""
        body, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(body).encode()):
            return None
        encoded, _, begun = body.partition(".")
        if self.access.auth and int(begun) + LOGIN_S < time.time():
            return None
        return self._owner(base64.urlsafe_b64decode(encoded).decode())

    def of_header(self, value: str) -> str | None:
        """The owner an Authorization header stands for. Without a password any long secret is a session; with one, Basic."""
        kind, _, rest = value.partition(" ")
        if kind.lower() == "bearer" and not self.access.auth and len(rest.strip()) >= SHORTEST_BEARER:
            return self._owner(f"b-{rest.strip()}")
        if kind.lower() == "basic" and self.access.auth:
            try:
                given = base64.b64decode(rest, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                return None
            return self._owner(f"u-{self._user}") if self.matches(given) else None
        return None

    def matches(self, given: str) -> bool:
        """Whether USER:PASSWORD is right; after many wrong ones nobody is believed for a while."""
        seen = hmac.digest(self.key, given.encode(), "sha256")
        if self._right and hmac.compare_digest(seen, self._right):  # whoever is in already is not kept out by others' guesses
            return True
        now = time.monotonic()
        self._failures = [at for at in self._failures if now - at < FAILURES_S]
        if len(self._failures) >= MOST_FAILURES:
            return False
        right = hmac.compare_digest(self._slow(given), self._digest)
        if right:
            self._right = seen
        else:
            self._failures.append(now)
        return right

    def _slow(self, text: str) -> bytes:
        return hashlib.scrypt(text.encode(), salt=self._salt, n=2**13, r=8, p=1) if text else b""

    def _sign(self, body: str) -> str:
        return hmac.new(self.key, body.encode(), "sha256").hexdigest()

    def _owner(self, who: str) -> str:
        return hmac.new(self.key, b"owner:" + who.encode(), "sha256").hexdigest()[:32]


class Guard:
    """ASGI: stands before every route, HTTP and WebSocket alike.

    Args:
        app: what is guarded.
        sessions: who is who.
    """

    def __init__(self, app: App, sessions: Sessions) -> None:
        self._app, self._sessions, self._access = app, sessions, sessions.access

    async def __call__(self, scope: Scope, receive: Callable, send: Callable) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refusal(scope, headers)
        if refused is not None:
            await refuse(scope, receive, send, 403, refused)
            return
        owner, begun = self._owner(headers), None
        if owner is None and not self._access.auth and scope["type"] == "http":
            owner, begun = self._sessions.begin()
        if owner is None and not (scope["type"] == "http" and scope["path"] == "/login"):
            await self._turn_away(scope, receive, send, headers)
            return
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in UNBELIEVED]
        scope.setdefault("state", {})["owner"] = owner
        scope["state"]["sessions"] = self._sessions
        await self._app(scope, receive, _with_headers(scope, send, cookie_header(begun, scope) if begun else None))

    def _owner(self, headers: dict[str, str]) -> str | None:
        try:
            held = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
            owner = self._sessions.read(held.value) if held is not None else None
        except (CookieError, ValueError, UnicodeError):
            owner = None
        return owner or self._sessions.of_header(headers.get("authorization", ""))

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> str | None:
        """Why a request cannot come from a page of ours or a program; None when it can."""
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or not self._knows(headers["host"]):
            return "This server does not answer to that name. Start it with --allow-host NAME, or use its address."
        origin = headers.get("origin")
        if origin is not None and not self._is_ours(origin, headers["host"]):
            return "A page of another place may not use this server."
        site = headers.get("sec-fetch-site", "none")
        visited = scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
        if site in ("cross-site", "same-site") and not (visited and headers.get("sec-fetch-dest") == "document"):
            return "A page of another place may not use this server."
        return None

    def _knows(self, host: str) -> bool:
        """Names that a page elsewhere cannot make point here: loopback, plain addresses, and what was allowed."""
        name = host_name(host)
        if name in (*LOOPBACK, *(known.lower() for known in self._access.names)):
            return True
        if is_loopback(self._access.host):
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name == self._access.host.lower()
        return True

    def _is_ours(self, origin: str, host: str) -> bool:
        scheme, _, place = origin.partition("://")
        return scheme in ("http", "https") and (
            place.lower() == host.lower() or host_name(place) in (known.lower() for known in self._access.names)
        )

    async def _turn_away(self, scope: Scope, receive: Callable, send: Callable, headers: dict[str, str]) -> None:
        if scope["type"] == "http" and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            await _answer(send, 303, "Sign in first.", [(b"location", b"/login")])
        else:
            await refuse(scope, receive, send, 401, "Sign in first.")


def host_name(host: str) -> str:
    """Name or address of a Host header, without its port."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.rpartition(":")[0] if name.count(":") == 1 else name


def cookie_header(value: str, scope: Scope) -> tuple[bytes, bytes]:
    """Set-Cookie for a session."""
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    text = f"{COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={COOKIE_S}{secure}"
    return b"set-cookie", text.encode()


async def refuse(scope: Scope, receive: Callable, send: Callable, status: int, words: str) -> None:
    """Answer a request with a refusal; a WebSocket is closed before it is opened."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4000 + status, "reason": words[:100]})
        return
    await _answer(send, status, words, [])


async def _answer(send: Callable, status: int, words: str, headers: list[tuple[bytes, bytes]]) -> None:
    kind = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": [*kind, *HEADERS.items(), *headers]})
    await send({"type": "http.response.body", "body": words.encode()})


def _with_headers(scope: Scope, send: Callable, cookie: tuple[bytes, bytes] | None) -> Callable:
    """Add our headers to an answer; what a route has set itself stays, but for permissions to other places."""

    async def sender(message: Any) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message.get("headers", []) if not name.lower().startswith(b"access-control-")]
            present = {name.lower() for name, _ in kept}
            kept += [(name, value) for name, value in HEADERS.items() if name not in present]
            kept += [cookie] if cookie is not None else []
            message = {**message, "headers": kept}
        await send(message)

    return sender
