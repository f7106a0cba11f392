"""The viewer's server answers this machine's own page and nobody else; its process says where it is and ends by itself."""

from __future__ import annotations

import gzip
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import viser
from viewer_scenes import make_scene
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from app.viewing.guard import is_loopback, loopback_server, stop_quietly, why_refused
from app.viewing.viser_page import SCRIPT

import helpers


@pytest.fixture(scope="module")
def server() -> Iterator[viser.ViserServer]:
    made = loopback_server(0)
    yield made
    stop_quietly(made)


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "localhost:1", "[::1]:80", "recon.localhost:3"])
def test_names_of_this_machine_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "example.org", "127.0.0.1.example.org", "localhost.example.org:80", "10.0.0.1", "x@[::"])
def test_other_names_are_not(host: str) -> None:
    assert why_refused({"Host": host})


def ask(port: int, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/", headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def test_a_name_that_was_rebound_gets_no_page(server: viser.ViserServer) -> None:
    assert ask(server.get_port()).status == 200
    assert ask(server.get_port(), Host="evil.example").status == 403
    assert ask(server.get_port(), Origin="http://evil.example").status == 403


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_the_page_has_our_script_once_and_says_its_length(server: viser.ViserServer, encoding: str) -> None:
    for _ in range(2):
        connection = http.client.HTTPConnection("127.0.0.1", server.get_port(), timeout=10)
        connection.request("GET", "/", headers={"Accept-Encoding": encoding})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert answer.headers.get_all("Content-Length") == [str(len(body))]
        page = gzip.decompress(body) if encoding == "gzip" else body
        assert page.count(b"document.hasFocus = ") == 1
        assert page.index(b"document.hasFocus = ") < page.index(b"<script", page.index(SCRIPT) + len(SCRIPT))


def test_the_page_may_load_nothing_from_elsewhere(server: viser.ViserServer) -> None:
    policy = ask(server.get_port()).headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http:" not in policy.partition("frame-ancestors")[0]


def test_another_site_cannot_open_the_socket(server: viser.ViserServer) -> None:
    address = f"ws://127.0.0.1:{server.get_port()}"
    protocol = [f"viser-v{viser.__version__}"]
    with pytest.raises(InvalidStatus) as refused:
        connect(address, subprotocols=protocol, origin="http://evil.example")  # pyright: ignore[reportArgumentType]
    assert refused.value.response.status_code == 403
    own = f"http://127.0.0.1:{server.get_port()}"
    with connect(address, subprotocols=protocol, origin=own) as socket:  # pyright: ignore[reportArgumentType]
        assert socket.recv(timeout=10)


def test_nobody_can_ask_for_a_tunnel(server: viser.ViserServer) -> None:
    from viser import _messages

    assert _messages.ShareUrlRequest not in server._websock_server._incoming_handlers


def test_a_process_shows_one_scene_and_ends_when_nobody_looks(tmp_path: Path) -> None:
    from recon.formats.registry import FORMATS, write_splats

    write_splats(tmp_path / "scene.ply", make_scene().gaussians, FORMATS["ply"])
    command = [sys.executable, "-m", "app.viewing.child", "--scene", str(tmp_path), "--idle-s", "1.5"]
    with subprocess.Popen(command, cwd=helpers.REPOSITORY, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = json.loads(child.stdout.readline())
        assert ask(said["port"]).status == 200
        began = time.monotonic()
        assert child.wait(timeout=60) == 0
        assert time.monotonic() - began < 30
        assert child.stdout.read() == ""


def test_a_process_says_why_it_cannot(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.viewing.child", "--scene", str(tmp_path / "nothing.ply")]
    done = subprocess.run(command, cwd=helpers.REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    said = json.loads(done.stdout)
    assert "does not exist" in said["error"]
    assert said["remedy"]
