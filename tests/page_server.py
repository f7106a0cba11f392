"""Serve the page before a server that reconstructs nothing, for tests; the owner is a header, else 'me'."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse

from app.web.page import build_page
from app.web.style import page_options

from fake_jobs import FakeJobs

VIEWER = "<html lang='en'><title>viewer</title><body style='background:#224466'><h1 style='color:white'>{}</h1></body></html>"


@contextmanager
def served_page(out: Path) -> Iterator[tuple[FakeJobs, str]]:
    """The page and its address on a free port."""
    jobs, app = FakeJobs(out), FastAPI()

    @app.get("/thumbs/{name}")
    def thumbnail(name: str) -> FileResponse:
        return FileResponse(out / "looked" / name)

    @app.get("/jobs/{job}/files/{path:path}")
    def file(job: str, path: str) -> FileResponse:
        return FileResponse(jobs.views[job].folder / path)

    @app.get("/viewer-of/{job}")
    def viewer(job: str, early: bool) -> HTMLResponse:
        return HTMLResponse(VIEWER.format(f"{job} {'early' if early else 'final'}"))

    blocks = build_page(jobs, lambda request: request.headers.get("x-owner", "me"))
    mounted = gr.mount_gradio_app(app, blocks, path="/", **page_options())
    server = uvicorn.Server(uvicorn.Config(mounted, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield jobs, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
