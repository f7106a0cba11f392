"""`recon app`: the web page and its server.

Input: flags. Output: a page on this machine until Ctrl-C. Does not: share, or send usage data.
"""

from __future__ import annotations

import os
import threading
import webbrowser
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from recon.errors import UserError

from ..console import Quiet, say
from .access import Access, is_loopback
from .limits import Limits


@dataclass(frozen=True, kw_only=True)
class AppArguments:
    """Serve a page where photos can be dropped and become a scene. Runs until Ctrl-C; what it was doing then goes on at the next
    start. Only this machine can reach it unless --host says otherwise."""

    host: str = "127.0.0.1"
    """Address to listen on: 0.0.0.0 for all. Any but loopback wants --auth, or --no-auth."""
    port: int = 7860
    """Port of the page and of everything in it; 0 lets the system choose."""
    auth: str = ""
    """USER:PASSWORD that visitors must know; better given as the environment variable RECON_AUTH, which no process list shows."""
    no_auth: Quiet = False
    """Let everybody in who can reach this machine."""
    allow_host: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")] = ()
    """Names under which the server is reached, beside localhost and plain addresses: that of a proxy, for instance."""
    out: Path = Path("out/app")
    """Folder that keeps the reconstructions, one sub-folder each."""
    open: Quiet = False
    """Also open the page in the browser."""
    limits: Limits = field(default_factory=Limits)
    """How much visitors may take."""


def serve(arguments: AppArguments) -> int:
    """Run the command."""
    from .site import Server, bind, build_site

    auth = arguments.auth or os.environ.get("RECON_AUTH", "")
    access = Access(host=arguments.host, auth=auth, open_to_all=arguments.no_auth, names=arguments.allow_host)
    taken = bind(arguments.host, arguments.port)
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {arguments.out} cannot be made ({error.strerror}).", "Choose another with --out.") from error
    from .service import Service

    service = Service(arguments.out, arguments.limits)
    try:
        from .gradio_import import import_gradio

        import_gradio()
        from ..web.page import build_page
        from ..web.style import page_options

        server = Server(build_site(service, access, build_page, **page_options()), taken)
        place = arguments.host.strip("[]")
        url = f"http://{f'[{place}]' if ':' in place else place}:{server.port}"
        say(f"Page: {url}  (Ctrl-C stops it)")
        if not is_loopback(arguments.host) and not auth:
            say("Note: everybody who can reach this machine can use the page and its disk.")
        if arguments.open:
            threading.Timer(0.5, webbrowser.open, (url,)).start()
        server.run()
    finally:
        service.close()
        taken.close()
    return 0
