"""Forwarding to a viewer: HTTP and WebSocket, through the app's own port.

Input: a request below /view/<job>/<secret>/. Output: what the viewer on loopback answers. Does not: check sessions (the guard has).

The viewer sees a visitor from its own address: no cookie, no Origin, no header of ours reaches it, and no cookie of it leaves.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import websockets
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from .refusals import NotThere
from .viewers import KEY_HEADER, Viewer, Viewers

LARGEST_DOWN, LARGEST_UP = 256 << 20, 64 << 20
"""Bytes of one message from and to the viewer."""
SENT_ON = ("accept", "accept-encoding", "if-none-match", "range", "user-agent")
HANDED_BACK = ("content-type", "content-encoding", "content-length", "cache-control", "etag")
WHOLE = "/view/{job_id}/{secret}"


class ViewerProxy:
    """Routes below /view.

    Args:
        viewers: the open viewers.
    """

    def __init__(self, viewers: Viewers) -> None:
        self._viewers = viewers
        self._client = httpx.AsyncClient(timeout=30.0, trust_env=False, follow_redirects=False)

    def routes(self) -> list[BaseRoute]:
        return [
            WebSocketRoute(WHOLE, self.socket),
            WebSocketRoute(WHOLE + "/{rest:path}", self.socket),
            Route(WHOLE, self.to_folder),
            Route(WHOLE + "/{rest:path}", self.page),
        ]

    async def close(self) -> None:
        await self._client.aclose()

    def _find(self, place: Request | WebSocket) -> Viewer:
        return self._viewers.find(place.state.owner, place.path_params["job_id"], place.path_params["secret"])

    async def to_folder(self, request: Request) -> Response:
        """The page names its parts relative to a path that ends with a slash."""
        return RedirectResponse(request.url.path + "/", 307)

    async def page(self, request: Request) -> Response:
        """Fetch a file of the viewer."""
        try:
            viewer = self._find(request)
        except NotThere as error:
            return PlainTextResponse(f"{error.reason} Open the viewer again from the page.", 404)
        headers = {name: request.headers[name] for name in SENT_ON if name in request.headers} | {KEY_HEADER: viewer.key}
        url = httpx.URL(scheme="http", host="127.0.0.1", port=viewer.port, path="/" + request.path_params["rest"])
        try:
            answer = await self._client.send(self._client.build_request("GET", url, headers=headers), stream=True)
        except httpx.HTTPError:
            return PlainTextResponse("The viewer does not answer. Open it again from the page.", 502)
        kept = {name: answer.headers[name] for name in HANDED_BACK if name in answer.headers}
        return StreamingResponse(_body(answer), answer.status_code, headers=kept)

    async def socket(self, visitor: WebSocket) -> None:
        """Join a visitor's WebSocket and one of the viewer until either ends."""
        try:
            viewer = self._find(visitor)
        except NotThere:
            await visitor.close(4404)
            return
        asked = [websockets.Subprotocol(name) for name in visitor.scope.get("subprotocols", [])]
        try:
            inner = await websockets.connect(
                f"ws://127.0.0.1:{viewer.port}/", subprotocols=asked or None, compression=None, max_size=LARGEST_DOWN,
                proxy=None, open_timeout=20.0, ping_interval=None, additional_headers={KEY_HEADER: viewer.key},
            )  # fmt: skip
        except (OSError, TimeoutError, websockets.WebSocketException):
            await visitor.close(4502)
            return
        viewer.sockets += 1
        try:
            await visitor.accept(subprotocol=inner.subprotocol)
            await _join(visitor, inner)
        finally:
            viewer.sockets -= 1
            viewer.used_s = time.monotonic()
            await inner.close()


async def _body(answer: httpx.Response) -> Any:
    try:
        async for piece in answer.aiter_raw():
            yield piece
    finally:
        await answer.aclose()


async def _join(visitor: WebSocket, inner: websockets.ClientConnection) -> None:
    """Pass messages both ways; the end of one side ends the other."""

    async def up() -> None:
        while True:
            message = await visitor.receive()
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("bytes")
            await inner.send(data if data is not None else message["text"])

    async def down() -> None:
        async for data in inner:
            if isinstance(data, bytes):
                await visitor.send_bytes(data)
            else:
                await visitor.send_text(data)

    tasks = [asyncio.create_task(up()), asyncio.create_task(down())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if error is not None and not isinstance(error, (websockets.ConnectionClosed, WebSocketDisconnect, RuntimeError)):
                raise error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if tasks[1] in done:
        try:
            await visitor.close()
        except RuntimeError:  # the visitor has left at the same moment
            return
