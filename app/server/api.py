"""Our routes: jobs as JSON, files, uploads, signing in.

Input: requests that passed the guard. Output: answers, refusals with their words. Does not: check sessions, or draw the page.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from recon.errors import UserError

from .access import Sessions, cookie_header
from .exports import EXPORTS
from .records import JobView
from .refusals import NotThere, Refused
from .service import Service
from .settings import RunSettings
from .uploads import Tracked

LONGEST_WAIT_S, LOOK_EVERY_S = 60.0, 0.25
MOST_SLOW = 6
"""Requests that may wait for an export or a viewer at once."""
LARGEST_JSON = 256 << 10
MOST_TRACKED = 200
INLINE = {
    ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".mp4": "video/mp4",
    ".html": "text/html; charset=utf-8", ".json": "application/json",
}  # fmt: skip
"""Endings that may be shown in a page; all else is saved."""
SANDBOX = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob: data:; "
    "style-src 'unsafe-inline'; img-src data: blob:; media-src data: blob:; font-src data:; connect-src data: blob:; "
    "worker-src blob: data:"
)
"""Pages that a run has made know names from outside: they run without a session and cannot reach anything."""
UPLOAD_ID = re.compile(r"\w{1,64}")


class Api:
    """Routes over the service.

    Args:
        service: does the work.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._slow = asyncio.Semaphore(MOST_SLOW)

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/login", words(self.login), methods=["GET", "POST"]),
            Route("/api/jobs", words(self.submit), methods=["POST"]),
            Route("/api/jobs", words(self.list), methods=["GET"]),
            Route("/api/jobs/{job_id}", words(self.get), methods=["GET"]),
            Route("/api/jobs/{job_id}", words(self.delete), methods=["DELETE"]),
            Route("/api/jobs/{job_id}/files", words(self.files), methods=["GET"]),
            Route("/api/jobs/{job_id}/{action}", words(self.act), methods=["POST"]),
            Route("/jobs/{job_id}/files/{inside:path}", words(self.job_file), methods=["GET"]),
            Route("/uploads/{inside:path}", words(self.upload_file), methods=["GET"]),
            Route("/gradio_api/upload", words(self.upload), methods=["POST"]),
            Route("/gradio_api/upload_progress", words(self.upload_progress), methods=["GET"]),
            Route("/gradio_api/file={path:path}", words(self.gradio_file), methods=["GET"]),
        ]

    async def login(self, request: Request) -> Response:
        """Ask for the password, or take it; gradio's client signs in here, too."""
        sessions: Sessions = request.state.sessions
        if not sessions.access.auth:
            return RedirectResponse("/", 303)
        if request.method == "GET":
            return HTMLResponse(LOGIN_PAGE.format(words=""))
        given = await read_login(request)
        if not await run_in_threadpool(sessions.matches, f"{given.get('username', '')}:{given.get('password', '')}"):
            await asyncio.sleep(0.5)
            return HTMLResponse(LOGIN_PAGE.format(words="That is not right."), 401)
        answer = RedirectResponse("/", 303) if "text/html" in request.headers.get("accept", "") else JSONResponse({"success": True})
        answer.raw_headers.append(cookie_header(sessions.begin()[1], request.scope))
        return answer

    async def submit(self, request: Request) -> Response:
        """Take a form with files, "settings" (JSON) and "name", and queue it."""
        owner = request.state.owner
        form = await self._receive(request)
        try:
            given = json.loads(form.fields.get("settings") or "{}")
        except (ValueError, RecursionError) as error:
            raise Refused("settings: this is not JSON.", 'Give for example {"preset": "fast"}.') from error
        if not isinstance(given, dict):
            raise Refused("settings: wanted a JSON object.", 'Give for example {"preset": "fast"}.')
        settings, name = RunSettings.read(given), form.fields.get("name", "")
        view = await run_in_threadpool(lambda: self._service.submit(owner, form.files, settings, name=name))
        return JSONResponse(as_json(view), 201, headers={"Location": f"/api/jobs/{view.id}"})

    async def list(self, request: Request) -> Response:
        found = await run_in_threadpool(self._service.list, request.state.owner)
        return JSONResponse([as_json(view) for view in found])

    async def get(self, request: Request) -> Response:
        """A job; with ?wait=SECONDS&since=N it answers at the next change."""
        owner, job_id = request.state.owner, request.path_params["job_id"]
        seconds = min(LONGEST_WAIT_S, max(0.0, number(request, "wait")))
        since = int(number(request, "since"))
        for _ in range(int(seconds / LOOK_EVERY_S)):  # a thread for each who waits would soon be all threads
            if (await run_in_threadpool(self._service.wait, owner, job_id, since, 0.0))[0] != since:
                break
            await asyncio.sleep(LOOK_EVERY_S)
        count, view = await run_in_threadpool(self._service.wait, owner, job_id, since, 0.0)
        return JSONResponse({**as_json(view), "change": count})

    async def delete(self, request: Request) -> Response:
        await run_in_threadpool(self._service.delete, request.state.owner, request.path_params["job_id"])
        return Response(status_code=204)

    async def files(self, request: Request) -> Response:
        """Names, sizes and addresses of all files of a job."""
        owner, job_id = request.state.owner, request.path_params["job_id"]
        found = await run_in_threadpool(self._service.job_files, owner, job_id)
        folder = self._service.folder(job_id)
        names = [path.relative_to(folder).as_posix() for path in found]
        return JSONResponse(
            [
                {"name": name, "bytes": path.stat().st_size, "url": f"/jobs/{job_id}/files/{quote(name)}"}
                for name, path in zip(names, found, strict=True)
            ]
        )

    async def act(self, request: Request) -> Response:
        """cancel, again, export (?format=...) or view."""
        owner, job_id, action = request.state.owner, request.path_params["job_id"], request.path_params["action"]
        if action == "cancel":
            await run_in_threadpool(self._service.cancel, owner, job_id)
        elif action == "again":
            await run_in_threadpool(self._service.again, owner, job_id)
        elif action == "export":
            kind = request.query_params.get("format", "")
            async with self._slow:
                made = await run_in_threadpool(self._service.export, owner, job_id, kind)
            return JSONResponse({"url": self._service.file_path(owner, job_id, made), "bytes": made.stat().st_size})
        elif action == "view":
            async with self._slow:
                path = await run_in_threadpool(lambda: self._service.viewer_path(owner, job_id, early=True))
            return JSONResponse({"url": path})
        else:
            raise Refused("There is nothing here.", f"Exports are: {', '.join(EXPORTS)}.", 404)
        return JSONResponse(as_json(self._service.get(owner, job_id)))

    async def job_file(self, request: Request) -> Response:
        owner, job_id = request.state.owner, request.path_params["job_id"]
        path = await run_in_threadpool(self._service.job_file, owner, job_id, request.path_params["inside"])
        return send_file(path, inline=request.query_params.get("inline") == "1")

    async def upload_file(self, request: Request) -> Response:
        owner = request.state.owner
        given = self._service.uploads.shelf(owner) / request.path_params["inside"]
        return send_file(await run_in_threadpool(self._service.upload_file, owner, str(given)), inline=True)

    async def gradio_file(self, request: Request) -> Response:
        """What gradio's own components ask for: files of the owner's jobs and clean uploads."""
        owner, given = request.state.owner, request.path_params["path"]
        out = self._service.out
        if Path(given).is_absolute() and Path(given).is_relative_to(out):
            job_id, _, inside = Path(given).relative_to(out).as_posix().partition("/")
            if not job_id.startswith("."):
                return send_file(await run_in_threadpool(self._service.job_file, owner, job_id, inside), inline=True)
        return send_file(await run_in_threadpool(self._service.upload_file, owner, given), inline=True)

    async def upload(self, request: Request) -> Response:
        """Gradio's way to send files, before a call names them."""
        form = await self._receive(request)
        return JSONResponse([str(path) for path in form.files])

    async def upload_progress(self, request: Request) -> Response:
        """Tell gradio's page how far its upload is, in the words it knows."""
        tracked = self._track(request)
        if tracked is None:
            raise NotThere

        async def stream() -> AsyncIterator[str]:
            while True:
                try:
                    news = await asyncio.wait_for(tracked.news.get(), 15.0)
                except TimeoutError:
                    yield 'data: {"msg": "heartbeat"}\n\n'
                    continue
                if news is None:
                    self._service.uploads.tracked.pop(request.query_params.get("upload_id", ""), None)
                    yield 'data: {"msg": "done"}\n\n'
                    return
                yield f"data: {json.dumps({'msg': 'update', 'orig_name': news[0], 'chunk_size': news[1]})}\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def _receive(self, request: Request) -> Any:
        """Stream the files of a form to the owner's folder."""
        self._track(request)
        length = request.headers.get("content-length", "")
        return await self._service.uploads.receive(
            request.state.owner, request.headers.get("content-type", ""), int(length) if length.isdigit() else None,
            request.stream(), upload_id=request.query_params.get("upload_id", ""),
        )  # fmt: skip

    def _track(self, request: Request) -> Tracked | None:
        """What is known of an upload the page gave a name to; None without one, or when another visitor has it."""
        upload_id, known = request.query_params.get("upload_id", ""), self._service.uploads.tracked
        if not UPLOAD_ID.fullmatch(upload_id):
            return None
        while len(known) > MOST_TRACKED:
            known.pop(next(iter(known)))
        tracked = known.setdefault(upload_id, Tracked(owner=request.state.owner))
        return tracked if tracked.owner == request.state.owner else None


def words(handler: Callable) -> Callable:
    """Turn refusals into answers."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except UserError as error:
            status = getattr(error, "status", 422)
            return JSONResponse({"error": error.reason, "remedy": error.remedy}, status)

    return handle


def number(request: Request, name: str) -> float:
    text = request.query_params.get(name, "0")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 2**53:
        raise Refused(f"{name}: {text[:40]!r} is no number.")
    return value


async def read_login(request: Request) -> dict[str, str]:
    """Fields of a short form, as browsers and gradio's client send them.

    Raises:
        Refused: it is too long.
    """
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_FIELD:
            raise Refused("The form is too long.", "", 413)
    return dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=10))


LARGEST_FIELD = 8 << 10


def send_file(path: Path, *, inline: bool) -> Response:
    """Send a file, to be shown where that is harmless, else to be saved."""
    kind = INLINE.get(path.suffix.lower())
    shown = inline and kind is not None
    answer = FileResponse(
        path,
        media_type=kind if shown else "application/octet-stream",
        filename=path.name,
        content_disposition_type="inline" if shown else "attachment",
        headers={"Cache-Control": "private, no-cache"},
    )
    if shown and path.suffix.lower() == ".html":
        answer.headers["Content-Security-Policy"] = SANDBOX
    return answer


def as_json(view: JobView) -> dict[str, Any]:
    """A job for programs: what the page sees, without paths of this machine."""
    return {
        "id": view.id, "name": view.name, "state": view.state, "position": view.position, "created_s": view.created_s,
        "started_s": view.started_s, "finished_s": view.finished_s, "settings": view.settings, "photos": list(view.photos),
        "stages": {n: {"fraction": s.fraction, "message": s.message, "seconds": s.seconds} for n, s in view.stages.items()},
        "advice": list(view.advice), "reason": view.reason, "remedy": view.remedy, "offending": list(view.offending),
        "photo_words": {name: list(said) for name, said in view.photo_words.items()}, "bytes": view.bytes,
        "resumed": view.resumed, "early": {"cameras": view.early_cameras is not None, "scene": view.early_scene is not None},
        "files": f"/api/jobs/{view.id}/files",
    }  # fmt: skip


LOGIN_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>recon</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:16px system-ui,sans-serif;display:grid;place-items:center;min-height:90vh;margin:0;color-scheme:light dark}}
form{{display:grid;gap:.7rem;width:min(20rem,90vw)}}input,button{{font:inherit;padding:.5rem}}p{{color:#b3261e;margin:0}}</style></head>
<body><main><form method="post" action="/login"><h1>recon</h1>
<label for="u">Name</label><input id="u" name="username" autocomplete="username" required autofocus>
<label for="p">Password</label><input id="p" name="password" type="password" autocomplete="current-password" required>
<button>Sign in</button><p role="alert">{words}</p></form></main></body></html>"""
