"""Drive the page in a real browser with playwright: the machine's own Chromium, software drawing, every request written down."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Frame, Locator, Page, expect, sync_playwright

import helpers

FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-gpu-watchdog"]
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
PATIENCE_MS = 120_000
"""A machine of two cores that has other work may take its time; what is awaited usually comes at once."""
HERE = ("127.0.0.1", "localhost", "")


@dataclass
class Visit:
    """One tab: the page, and what it did."""

    page: Page
    outside: list[str] = field(default_factory=list)
    """Requests and sockets to anything that is not this machine."""
    errors: list[str] = field(default_factory=list)
    """What the console called an error."""

    def picture(self, of: Page | Locator | None = None) -> np.ndarray:
        """Take a picture as uint8 ``H W 3``."""
        return np.asarray(Image.open(io.BytesIO((of or self.page).screenshot())).convert("RGB"))

    def frame(self) -> Frame:
        """The frame of the 3D viewer."""
        element = self.page.wait_for_selector("#viewer iframe")
        assert element is not None
        frame = element.content_frame()
        assert frame is not None
        return frame


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser that takes no proxy and talks to nobody by itself."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as engine:
        running = engine.chromium.launch(executable_path=helpers.find_browser(), args=FLAGS)
        try:
            yield running
        finally:
            running.close()


@contextmanager
def visit(running: Browser, url: str, *, size: dict = DESK, dark: bool = False, cookies: Sequence = ()) -> Iterator[Visit]:
    """Open an address in a fresh profile; cookies of an earlier visit make it the same visitor."""
    phone = size["width"] < 500
    context = running.new_context(
        viewport=size, color_scheme="dark" if dark else "light", has_touch=phone, is_mobile=phone, accept_downloads=True
    )  # fmt: skip
    context.add_cookies([dict(cookie) for cookie in cookies])  # pyright: ignore[reportArgumentType] as the browser gave them
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    made = Visit(page)
    context.on("request", lambda request: note(made, request.url))
    page.on("websocket", lambda socket: note(made, socket.url))
    page.on("console", lambda message: made.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: made.errors.append(str(error)))
    page.goto(url)
    page.wait_for_selector("#start")
    try:
        yield made
    finally:
        context.close()


def note(made: Visit, url: str) -> None:
    """Write a request down when it goes anywhere else."""
    parts = urlsplit(url)
    if parts.scheme not in ("data", "blob") and (parts.hostname or "") not in HERE:
        made.outside.append(url)


SETTLED = "document.getAnimations().every(one => one.playState !== 'running' || one.effect.getTiming().iterations === Infinity)"
"""Whether every change of colour or place that ends by itself has ended."""


def serious_findings(page: Page) -> list[str]:
    """Run axe once nothing changes its colour any more; returns its serious and critical findings as text."""
    from axe_playwright_python.sync_playwright import Axe

    page.wait_for_function(SETTLED)
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['target']}" for one in found if one["impact"] in ("serious", "critical")]


def sideways(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))
