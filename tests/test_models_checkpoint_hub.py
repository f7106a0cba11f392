"""Fetching published checkpoints from a hub that may misbehave: nothing is half installed, every error is in words."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from checkpoint_shelf import COMMIT, ENTRY, own_shelf, shelf  # noqa: F401
from tiny_networks import write_tiny

from models import checkpoints
from models.published.checkpoint.pickles import BrokenCheckpoint
from recon.errors import UserError


class Hub(ThreadingHTTPServer):
    """Serves one file the way the hub does, or misbehaves."""

    content: bytes = b""
    behaviour: str = "good"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        kind, body, status = self.server.behaviour, self.server.content, 200
        headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": COMMIT}
        if kind == "web page":
            body, headers = b"<html>Sign in</html>", {"Content-Type": "text/html"}
        elif kind == "page for file" and with_body:
            body = b"<html>Sign in</html>".ljust(len(body))
        elif kind == "gated":
            body, status, headers = b"", 403, {"X-Error-Code": "GatedRepo"}
        elif kind == "absent":
            body, status, headers = b"", 404, {"X-Error-Code": "EntryNotFound"}
        elif kind == "other file" and with_body:
            body = body[:-4] + b"\x00\x01\x02\x03"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body[: len(body) // 2] if kind == "cut off" else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Run a hub and point the client at it."""
    import huggingface_hub.constants

    server = Hub(("127.0.0.1", 0), _Handler)
    write_tiny(tmp_path / "served.safetensors")
    server.content = (tmp_path / "served.safetensors").read_bytes()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_checkpoint_is_fetched_from_a_hub(hub: Hub, tmp_path: Path) -> None:
    said: list[str] = []
    path = checkpoints.pull("tiny", accept_licence=True, say=said.append)
    assert path.read_bytes() == hub.content
    assert shelf(tmp_path) == [".unfinished", "tiny", "tiny/model.safetensors", "tiny/receipt.json"]
    assert checkpoints.verify("tiny").source == f"someone/tiny@{COMMIT}"
    assert any("downloading" in line for line in said)
    assert json.loads((path.parent / "receipt.json").read_text())["size_bytes"] == len(hub.content)


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("web page", "did not come from a Hugging Face hub"),
        ("page for file", "web page"),
        ("gated", "on request only"),
        ("absent", "The hub has no model.safetensors"),
    ],
)
def test_a_misbehaving_hub_installs_nothing(hub: Hub, tmp_path: Path, behaviour: str, words: str) -> None:
    hub.behaviour = behaviour
    with pytest.raises(UserError, match=words):
        checkpoints.pull("tiny", accept_licence=True)
    assert [name for name in shelf(tmp_path) if name.startswith("tiny")] == []


def test_a_file_that_is_not_the_published_one_is_refused(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = replace(ENTRY, sha256=hashlib.sha256(hub.content).hexdigest())
    monkeypatch.setattr(checkpoints, "all_checkpoints", lambda: {"tiny": pinned})
    hub.behaviour = "other file"
    with pytest.raises(BrokenCheckpoint, match="its checksum differs"):
        checkpoints.pull("tiny", accept_licence=True)
    assert [name for name in shelf(tmp_path) if "tiny" in name] == []


def test_an_interrupted_download_installs_nothing_and_can_be_repeated(hub: Hub, tmp_path: Path) -> None:
    hub.behaviour = "cut off"
    with pytest.raises(UserError, match="download failed"):
        checkpoints.pull("tiny", accept_licence=True)
    assert [name for name in shelf(tmp_path) if name.startswith("tiny")] == []
    hub.behaviour = "good"
    assert checkpoints.pull("tiny", accept_licence=True).read_bytes() == hub.content


def test_no_network_is_said_so(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"download failed.*Check the network"):
        checkpoints.pull("tiny", accept_licence=True)
    assert [name for name in shelf(tmp_path) if name.startswith("tiny")] == []
