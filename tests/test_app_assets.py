"""Scripts and styles of the page: sent from memory, compressed once, and nothing else with them."""

from __future__ import annotations

import gzip
import http.client
import re
import socket
from pathlib import Path
from typing import Any

from app_server import running
from page_files import SCRIPT, ask, elsewhere, page_folder

from app.server.site import Server, bind


def test_a_script_is_sent_compressed_to_whoever_can_unpack_it(tmp_path: Path) -> None:
    assets = page_folder(tmp_path)
    status, headers, body = ask(assets, "/assets/index-DphvyggB.js")
    assert (status, headers["content-encoding"], gzip.decompress(body)) == (200, "gzip", SCRIPT)
    assert headers["content-type"] == "text/javascript; charset=utf-8"
    assert "immutable" in headers["cache-control"]
    assert int(headers["content-length"]) == len(body) < len(SCRIPT)
    for encoding in ("", "br", "gzip;q=0", "identity"):
        status, headers, body = ask(assets, "/assets/index-DphvyggB.js", encoding=encoding)
        assert (status, body, headers.get("content-encoding")) == (200, SCRIPT, None), encoding
    assert ask(assets, "/assets/tiny-DphvyggC.css")[2] == b"a{}"
    assert ask(assets, "/assets/index-DphvyggB.js", "HEAD")[1:] == (ask(assets, "/assets/index-DphvyggB.js")[1], b"")


def a_page(service: Any, owner: Any) -> Any:
    import gradio

    with gradio.Blocks(analytics_enabled=False) as blocks:
        gradio.Markdown("stone")
    return blocks


def test_the_page_of_gradio_finds_its_scripts(tmp_path: Path) -> None:
    with running(tmp_path, make_page=a_page) as served, served.visitor() as me:
        page = me.get("/").text
        names = re.findall(r"assets/[\w@.-]+\.(?:js|css)", page)
        assert names
        for name in names:
            found = me.get(f"/{name}")
            assert found.status_code == 200, name
            assert "immutable" in found.headers["cache-control"], name
            assert found.headers["x-content-type-options"] == "nosniff"
            assert len(found.text) > 100


def test_answers_do_not_wait_for_the_visitors_acknowledgement() -> None:
    """Head and body are two packets; unless the connection sends at once, the second waits 40 ms for word of the first."""
    server = Server(elsewhere_with_lifespan, bind("127.0.0.1", 0))
    server.start()
    try:
        line = http.client.HTTPConnection("127.0.0.1", server.port)
        line.request("GET", "/")
        assert line.getresponse().read() == b"passed on"
        (connection,) = server._server.server_state.connections
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        line.close()
    finally:
        server.stop()


async def elsewhere_with_lifespan(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for answer in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{answer}.complete"})
        return
    await elsewhere(scope, receive, send)
