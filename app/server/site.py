"""The ASGI application: guard, door, our routes, the viewers, and gradio's page below them.

Input: a service and who may come in. Output: an application, and a server that runs it. Does not: parse a command line.

    guard (Host, Origin, session) -> door (what exists) -> scripts of the page | our routes | viewers | gradio
"""

from __future__ import annotations

import inspect
import os
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from recon.errors import UserError

from .access import Access, Guard, Sessions, read_secret
from .api import Api
from .assets import Assets
from .gradio_door import GradioDoor
from .gradio_import import import_gradio, mount_page
from .proxy import LARGEST_UP, ViewerProxy
from .service import Service

PageMaker = Callable[[Any, Callable[[Any], str]], Any]
"""(jobs, owner_of) -> gradio blocks."""
START_S = 60.0


def owner_of(request: Any) -> str:
    """The owner of a gradio request, as the guard has found it."""
    return request.request.scope["state"]["owner"]


def build_site(service: Service, access: Access, make_page: PageMaker | None = None, **options: Any) -> Guard:
    """Put everything together.

    Args:
        make_page: makes the blocks; None mounts no page.
        **options: for ``gradio.mount_gradio_app``.
    """
    from starlette.applications import Starlette

    sessions = Sessions(access=access, key=read_secret(service.out / ".server" / "secret"))
    proxy = ViewerProxy(service.viewers)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        await proxy.close()

    app = inner = Starlette(routes=[*Api(service).routes(), *proxy.routes()], lifespan=lifespan)
    if make_page is not None:
        os.environ["GRADIO_TEMP_DIR"] = str(service.uploads.root)
        gradio = import_gradio()
        gradio.set_static_paths([service.out])  # our files are sent from where they are, not copied into gradio's cache
        usual = {"footer_links": [], "ssr_mode": False, "run_history": False, "mcp_server": False, "enable_monitoring": False}
        options = {**usual, "show_error": False, **options}
        mount_page(app, lambda: make_page(service, owner_of), path="/", server_name="127.0.0.1", **options)
        inner = Assets(app, Path(inspect.getfile(gradio)).parent / "templates" / "frontend" / "assets")
    return Guard(GradioDoor(inner, service, without_outside), sessions)


def without_outside(page: bytes) -> bytes:
    """Gradio's HTML without the tags that would ask other places for scripts and fonts."""
    tags = rb"<link\b[^>]*(?:preconnect|dns-prefetch|https?:)[^>]*>|<script\b[^>]*\bsrc=[\"']?https?:[^>]*>\s*</script>"
    return re.sub(tags, b"", page)


def bind(host: str, port: int) -> socket.socket:
    """Take a port before anything slow begins: a browser that comes early waits instead of failing.

    Raises:
        UserError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, or asyncio leaves answers waiting for each other
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host.strip("[]"), port))
        taken.listen(256)
    except (OSError, OverflowError) as error:
        taken.close()
        raise UserError(f"{host} port {port} cannot be used ({error}).", "Give another one with --port.") from error
    return taken


class Server:
    """Runs an application on a socket.

    Args:
        app: from ``build_site``.
        taken: from ``bind``.
    """

    def __init__(self, app: Any, taken: socket.socket) -> None:
        import uvicorn

        self._socket = taken
        config = uvicorn.Config(
            app, log_level="warning", proxy_headers=False, server_header=False, lifespan="on", timeout_graceful_shutdown=2,
            ws="websockets-sansio", ws_max_size=LARGEST_UP, ws_per_message_deflate=False,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        return self._socket.getsockname()[1]

    def run(self) -> None:
        """Serve until interrupted."""
        self._server.run(sockets=[self._socket])

    def start(self) -> None:
        """Serve in a thread, and return once it answers."""
        self._thread = threading.Thread(target=self.run, name="recon-serve", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + START_S
        while not self._server.started and time.monotonic() < deadline:
            time.sleep(0.02)

    def stop(self) -> None:
        """End the thread."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(START_S)
        self._socket.close()
