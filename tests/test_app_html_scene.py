"""The page in one file, opened by a real browser from disk, with the network forbidden."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from splat_scenes import cloud
from websockets.sync.client import connect

from app.html_scene import export_html
from recon.records import Gaussians, Scene

from helpers import find_browser

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-gpu-watchdog",  # on a busy machine software GL is slow, not hung; ended, it leaves the page white for good
    "--disable-domain-blocking-for-3d-apis",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
    "--window-size=480,360",
]
PATIENCE_S = 150.0


class Browser:
    """A headless Chromium spoken to over its debugging socket."""

    def __init__(self, profile: Path) -> None:
        browser = find_browser()
        assert browser is not None
        self.process = subprocess.Popen(
            [browser, *FLAGS, f"--user-data-dir={profile}", "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        port = self._port(profile / "DevToolsActivePort")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            page = next(entry for entry in json.load(answer) if entry["type"] == "page")
        self.socket = connect(page["webSocketDebuggerUrl"], max_size=1 << 28, ping_interval=None)
        self.count = 0
        self.requested: list[str] = []

    def _port(self, file: Path) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if file.is_file() and file.read_text().count("\n"):
                return file.read_text().split()[0]
            time.sleep(0.1)
        raise TimeoutError("the browser did not start")

    def call(self, method: str, **parameters: object) -> dict:
        """Send a command and wait for its answer; addresses requested meanwhile are kept."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(timeout=PATIENCE_S))
            if message.get("method") == "Network.requestWillBeSent":
                self.requested.append(message["params"]["request"]["url"])
            if message.get("id") == self.count:
                return message.get("result", {})

    def picture(self) -> np.ndarray:
        data = base64.b64decode(self.call("Page.captureScreenshot")["data"])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()
        self.process.terminate()
        self.process.wait(30)


@pytest.mark.browser
@pytest.mark.slow
def test_a_browser_shows_the_scene_from_disk(tmp_path: Path) -> None:
    """Red Gaussians appear on the page though nothing but the file itself was asked for."""
    scene = cloud(count=400, degree=0, spread=0.5)
    red = torch.tensor([1.5, -1.5, -1.5]).expand(400, 1, 3).contiguous()
    scene = Gaussians(means=scene.means, quats=scene.quats, scales=scene.scales, opacities=scene.opacities.clamp(min=0.8), sh=red)
    page = tmp_path / "scene.html"
    export_html(Scene(gaussians=scene), page)
    browser = Browser(tmp_path / "profile")
    try:
        browser.call("Page.enable")
        browser.call("Network.enable")
        browser.call("Page.navigate", url=page.as_uri())
        deadline, seen = time.monotonic() + PATIENCE_S, 0
        while seen < 2000 and time.monotonic() < deadline:
            time.sleep(2.0)
            pixels = browser.picture()
            seen = int(((pixels[..., 0] > pixels[..., 1] + 60) & (pixels[..., 0] > pixels[..., 2] + 60)).sum())
        assert seen >= 2000
        assert all(url.startswith(("file:", "data:", "blob:")) for url in browser.requested)
    finally:
        browser.close()
