"""Stands in for the process of a viewer: ``python -m tests.fake_viewer_child --scene S --port 0 --idle-s N``, or ``--wait``.

Answers HTTP with what it was asked and echoes WebSocket messages; refuses whoever does not send its key.
"""

from __future__ import annotations

import asyncio
import http
import json
import os
import sys

from websockets.asyncio.server import serve


async def main() -> None:
    key = os.environ["RECON_VIEWER_KEY"]
    scene = json.loads(sys.stdin.readline())["scene"] if "--wait" in sys.argv else sys.argv[sys.argv.index("--scene") + 1]

    def answer(connection, request):
        if request.headers.get("X-Recon-Key") != key:
            return connection.respond(http.HTTPStatus.FORBIDDEN, "no key\n")
        if request.path == "/scene":
            return connection.respond(http.HTTPStatus.OK, scene)
        if request.headers.get("Upgrade") is None:
            seen = {"path": request.path, "cookie": request.headers.get("Cookie"), "origin": request.headers.get("Origin")}
            return connection.respond(http.HTTPStatus.OK, json.dumps(seen))
        return None

    async def echo(socket):
        async for message in socket:
            await socket.send(message)

    async with serve(echo, "127.0.0.1", 0, process_request=answer, subprotocols=["viser-v1"], max_size=None) as server:
        print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
