"""A viser server that only this machine can talk to, and only from its own page.

Input: a port. Output: a ``viser.ViserServer`` on 127.0.0.1.
Does not: know who is who. viser has no log-in; the app's own port puts one in front.

viser answers any web page that the visitor's browser has open: a site can open a WebSocket to 127.0.0.1, and a host name that
resolves to 127.0.0.1 makes the site same-origin (DNS rebinding). So every request must name a loopback host, and an Origin, when
there is one, must be that host. Answers carry a policy that forbids the page to load anything from elsewhere.
"""

from __future__ import annotations

import hmac
import http
import io
import ipaddress
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any
from urllib.parse import urlsplit

import viser
import websockets.asyncio.server
from viser import _messages

from .viser_page import stay_connected

HOST = "127.0.0.1"
KEY_HEADER = "X-Recon-Key"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",  # viser unpacks its own script and compiles WebAssembly
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'self' http://127.0.0.1:* http://localhost:*",
    )
)
"""Content-Security-Policy of the viewer's page."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_making = threading.Lock()


def is_loopback(host: str) -> bool:
    """True for localhost and loopback addresses, with or without a port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost" or name.endswith(".localhost"):
            return True
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def why_refused(headers: Mapping[str, str], key: str | None = None) -> str:
    """Say why a request is not answered; empty when it is.

    Args:
        key: what the request must carry as ``KEY_HEADER``; None asks for none.
    """
    if key is not None and not hmac.compare_digest(headers.get(KEY_HEADER, "").encode(), key.encode()):
        return "This page is reached through the app only."
    host = headers.get("Host", "")
    if not is_loopback(host):
        return "This page is served to this machine only."
    origin = headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != host:
        return "Another page asked for this one."
    return ""


@contextmanager
def _guarded_serving(key: str | None) -> Iterator[None]:
    """Let servers made within refuse strangers; viser offers no door for that, so the one it serves through is replaced."""
    genuine = websockets.asyncio.server.serve

    def serve(handler: Any, host: str, port: int, *, process_request: Callable, **options: Any) -> Any:
        def answer(connection: Any, request: Any) -> Any:
            reason = why_refused(request.headers, key)
            if reason:
                return connection.respond(http.HTTPStatus.FORBIDDEN, reason + "\n")
            response = process_request(connection, request)
            if response is not None:
                stay_connected(response)
                for name, value in HEADERS.items():
                    response.headers[name] = value
            return response

        return genuine(handler, host, port, process_request=answer, **options)

    with _making:
        websockets.asyncio.server.serve = serve  # pyright: ignore[reportAttributeAccessIssue]
        try:
            yield
        finally:
            websockets.asyncio.server.serve = genuine


def loopback_server(port: int, *, key: str | None = None) -> viser.ViserServer:
    """Start viser on 127.0.0.1.

    Args:
        port: the next free one is taken when it is busy; 0 lets the system choose.
        key: a secret that every request must carry, so that other users of the machine cannot visit; None asks for none.
    """
    with _guarded_serving(key), redirect_stdout(io.StringIO()):  # viser announces itself on stdout, which belongs to results
        server = viser.ViserServer(host=HOST, port=port, label="recon", verbose=False)
    # Any client could ask viser to open a tunnel to a public address.
    for message in (_messages.ShareUrlRequest, _messages.ShareUrlDisconnect):
        server._websock_server.unregister_handler(message)
    server.gui.configure_theme(show_share_button=False, show_logo=False, dark_mode=True)
    return server


def stop_quietly(server: viser.ViserServer) -> None:
    """Stop a server; viser says so on stdout."""
    with redirect_stdout(io.StringIO()):
        server.stop()
