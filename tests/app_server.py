"""A whole server for tests, with stand-ins for the processes that reconstruct and show."""

from __future__ import annotations

import atexit
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from app.server.access import Access
from app.server.clerk import Clerk
from app.server.limits import Limits
from app.server.service import Service
from app.server.site import PageMaker, Server, bind, build_site

SMALL = Limits(keep_free_gb=0.0)
CLERK = Clerk(SMALL)
atexit.register(CLERK.close)


@dataclass
class Running:
    """A server that answers."""

    service: Service
    url: str

    def visitor(self, **headers: str) -> httpx.Client:
        """A browser of its own: with its own cookies."""
        return httpx.Client(base_url=self.url, headers=headers, timeout=60.0, trust_env=False)


@contextmanager
def running(
    out: Path, *, access: Access | None = None, limits: Limits = SMALL, make_page: PageMaker | None = None, real: bool = False
) -> Iterator[Running]:
    """Serve on a free port of this machine.

    Args:
        real: reconstruct and show in earnest.
    """
    modules = {} if real else {"run_module": "tests.fake_run_child", "viewer_module": "tests.fake_viewer_child"}
    out.mkdir(parents=True, exist_ok=True)
    service = Service(out, limits, **modules)
    service._lookers = service._preparer = CLERK  # one for all tests: each would load torch anew
    before, CLERK._limits = CLERK._limits, limits
    server = Server(build_site(service, access or Access(), make_page), bind("127.0.0.1", 0))
    server.start()
    try:
        yield Running(service=service, url=f"http://127.0.0.1:{server.port}")
    finally:
        server.stop()
        service._lookers = service._preparer = Clerk(limits)
        service.close()
        CLERK._limits = before


def picture(seed: int = 0, *, size: tuple[int, int] = (64, 48), kind: str = "JPEG", **options: object) -> bytes:
    """A small photo that differs from others by its seed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(file, format=kind, **options)
    return file.getvalue()


def form(*names: str) -> list[tuple[str, tuple[str, bytes, str]]]:
    """Files of a form, one small photo per name."""
    return [("files", (name, picture(index), "image/jpeg")) for index, name in enumerate(names)]


def submit(visitor: httpx.Client, *names: str, **data: str) -> dict:
    """Queue a job with small photos."""
    answer = visitor.post("/api/jobs", files=form(*names), data=data)
    assert answer.status_code == 201, answer.text
    return answer.json()


def until(visitor: httpx.Client, job_id: str, *states: str, timeout_s: float = 90.0) -> dict:
    """Wait for a state."""
    deadline, since = time.monotonic() + timeout_s, 0
    while time.monotonic() < deadline:
        view = visitor.get(f"/api/jobs/{job_id}", params={"wait": 5, "since": since}).json()
        if view["state"] in states:
            return view
        since = view["change"]
    raise AssertionError(f"still {view['state']}: {view}")


def tiny_page(jobs, owner_of):
    """A page with one upload and one number."""
    import gradio as gr

    def count(given, request) -> int:
        return len(given or []) if owner_of(request) else -1

    count.__annotations__["request"] = gr.Request
    with gr.Blocks(analytics_enabled=False) as blocks:
        files = gr.File(file_count="multiple")
        number = gr.Number()
        files.upload(count, [files], [number], api_name="count")
    return blocks


def socket_url(served: Running, path: str) -> str:
    return served.url.replace("http", "ws") + path


def cookies_of(visitor: httpx.Client) -> str:
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in visitor.cookies.jar)


def owner_of(served: Running, visitor: httpx.Client) -> str:
    path = visitor.post("/gradio_api/upload", files=form("o.jpg")).json()[0]
    return Path(path).relative_to(served.service.uploads.root).parts[0]
