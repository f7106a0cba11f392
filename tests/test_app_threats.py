"""The threat model of the server (app/server/THREATS.md), first part: who may come in, and from where."""

from __future__ import annotations

import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import websockets
from app_server import Running, cookies_of, running, socket_url, submit, tiny_page, until
from websockets.sync.client import connect

from app.server.access import COOKIE, MOST_FAILURES, Access, Sessions
from recon.errors import UserError

import helpers

KEY_FILE = ".server/secret"
SPOKEN = [websockets.Subprotocol("viser-v1")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("open"), make_page=tiny_page) as made:
        yield made


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("locked"), access=Access(auth="me:s3cret"), make_page=tiny_page) as made:
        yield made


@pytest.fixture(scope="module")
def mine(served: Running) -> Iterator[tuple[httpx.Client, dict]]:
    """A visitor with a finished job."""
    with served.visitor() as me:
        yield me, until(me, submit(me, "a.jpg", "b.jpg")["id"], "done")


def test_every_line_names_a_test_and_every_test_has_a_line() -> None:
    lines = (helpers.REPOSITORY / "app" / "server" / "THREATS.md").read_text(encoding="utf-8").splitlines()
    named = [re.findall(r"`(test_\w+)` \|$", line) for line in lines if line.startswith("| ") and "| test |" not in line]
    sources = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("test_app_threats*.py"))]
    tests = {name for source in sources for name in re.findall(r"(?m)^def (test_\w+)", source)}
    tests.remove("test_every_line_names_a_test_and_every_test_has_a_line")
    assert all(len(found) == 1 for found in named)
    assert {found[0] for found in named} == tests


def test_other_machines_need_a_password() -> None:
    assert Access().host == "127.0.0.1"
    for host in ("0.0.0.0", "::", "192.168.1.4", "house.example"):
        with pytest.raises(UserError, match="--auth"):
            Access(host=host)
        assert Access(host=host, auth="me:word").host == host
        assert Access(host=host, open_to_all=True).host == host
    for wrong in ("me", ":", "me:", ":word"):
        with pytest.raises(UserError, match="--auth"):
            Access(auth=wrong)


def test_without_a_session_nothing_answers(locked: Running) -> None:
    paths = (
        "/",
        "/config",
        "/theme.css",
        "/assets/x.js",
        "/gradio_api/info",
        "/api/jobs",
        "/jobs/x/files/y",
        "/uploads/x",
        "/view/a/b/",
    )
    with locked.visitor() as stranger:
        for path in (*paths, "/gradio_api/file=/etc/passwd", "/gradio_api/upload", "/gradio_api/queue/join", "/nothing"):
            for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
                answer = stranger.request(method, path)
                assert (answer.status_code, answer.headers.get("set-cookie")) == (401, None), (method, path)
        assert stranger.get("/", headers={"Accept": "text/html"}).headers["location"] == "/login"
        for path in ("/view/a/b", "/", "/gradio_api/queue/join"):
            with pytest.raises(websockets.InvalidStatus) as refused:
                connect(socket_url(locked, path), proxy=None)
            assert refused.value.response.status_code == 403
        signed_in = stranger.post("/login", data={"username": "me", "password": "s3cret"})
        assert signed_in.json() == {"success": True}
        assert all(stranger.get(path).status_code == 200 for path in ("/", "/config", "/api/jobs"))
    assert httpx.get(locked.url + "/api/jobs", auth=("me", "s3cret"), trust_env=False).status_code == 200
    bearer = {"Authorization": "Bearer " + "x" * 40}
    assert httpx.get(locked.url + "/api/jobs", headers=bearer, trust_env=False).status_code == 401


def test_passwords_cannot_be_tried_without_end() -> None:
    sessions = Sessions(access=Access(auth="me:right"), key=b"k" * 32)
    assert sessions.matches("me:right")
    assert not any(sessions.matches(f"me:{number}") for number in range(MOST_FAILURES))
    assert sessions.matches("me:right")  # who was in already stays in
    fresh = Sessions(access=Access(auth="me:right"), key=b"k" * 32)
    assert not any(fresh.matches(f"me:{number}") for number in range(MOST_FAILURES))
    assert not fresh.matches("me:right")
    assert b"right" not in fresh._digest


def test_a_forged_session_is_refused(served: Running, mine: tuple[httpx.Client, dict]) -> None:
    me, job = mine
    value = me.cookies[COOKIE]
    body, _, signature = value.rpartition(".")
    with served.visitor() as other:
        other.get("/")
        theirs = other.cookies[COOKIE]
    for forged in (
        body + "." + "0" * 64, body, body + ".", value[:-1] + ("0" if value[-1] != "0" else "1"),
        theirs.partition(".")[0] + "." + signature,
        body + "." + theirs.rpartition(".")[2], "", "..", "a.b.c", "\xff.1.2", value + "." + signature,
    ):  # fmt: skip
        answer = httpx.get(
            f"{served.url}/api/jobs/{job['id']}", headers={b"Cookie": f"{COOKIE}={forged}".encode("latin-1")}, trust_env=False
        )
        assert answer.status_code == 404, forged
    assert me.get(f"/api/jobs/{job['id']}").status_code == 200
    assert stat.S_IMODE((served.service.out / KEY_FILE).stat().st_mode) == 0o600
    key = b"k" * 32
    cookie = Sessions(access=Access(auth="me:old"), key=key).begin()[1]
    assert Sessions(access=Access(auth="me:old"), key=key).read(cookie) is not None
    assert Sessions(access=Access(auth="me:new"), key=key).read(cookie) is None
    assert Sessions(access=Access(), key=key).read(cookie) is None


def test_cookies_are_out_of_reach(served: Running) -> None:
    given = httpx.get(served.url, trust_env=False).headers["set-cookie"]
    assert all(word in given for word in ("HttpOnly", "SameSite=Lax", "Path=/"))
    from app.server.access import cookie_header

    assert b"Secure" in cookie_header("x", {"scheme": "https"})[1]


def test_a_foreign_host_name_is_refused(served: Running, mine: tuple[httpx.Client, dict]) -> None:
    me, _ = mine
    port = served.url.rpartition(":")[2]
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.168.1.7",
        "",
        "[::2]",
    ):
        answer = me.get("/api/jobs", headers={"Host": host})
        assert answer.status_code in (400, 403), host
        assert answer.status_code == 400 or "--allow-host" in answer.text
    for host in (f"localhost:{port}", "localhost", "127.0.0.1:9", "[::1]:80", "LOCALHOST"):
        assert me.get("/api/jobs", headers={"Host": host}).status_code == 200
    with socket.create_connection(("127.0.0.1", int(port))) as raw:
        raw.sendall(b"GET /api/jobs HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        assert raw.recv(64).split()[1] in (b"400", b"403")


def test_a_page_elsewhere_is_refused(served: Running, mine: tuple[httpx.Client, dict]) -> None:
    me, job = mine
    here = served.url
    for headers in (
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:1"},
        {"Origin": here + ".evil.example"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    ):  # fmt: skip
        for method, path in (("GET", "/api/jobs"), ("POST", "/api/jobs"), ("DELETE", f"/api/jobs/{job['id']}"), ("GET", "/")):
            answer = me.request(method, path, headers=headers)
            assert answer.status_code == 403, (headers, method)
            assert "access-control-allow-origin" not in answer.headers
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert me.get("/", headers=followed).status_code == 200
    assert me.post("/api/jobs", headers=followed).status_code == 403
    assert me.get("/api/jobs", headers={"Origin": here, "Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_a_websocket_from_elsewhere_is_refused(served: Running, mine: tuple[httpx.Client, dict]) -> None:
    me, job = mine
    path = me.post(f"/api/jobs/{job['id']}/view").json()["url"]
    ours = {"Cookie": cookies_of(me)}
    for origin, headers in (
        ("https://evil.example", ours), ("null", ours), (None, {}), (served.url, {}), (None, {**ours, "Host": "evil.example"}),
        (None, {**ours, "Sec-Fetch-Site": "cross-site"}),
    ):  # fmt: skip
        with pytest.raises((websockets.InvalidStatus, websockets.InvalidHandshake)):
            connect(socket_url(served, path), origin=origin, additional_headers=headers, proxy=None, subprotocols=SPOKEN)
    with connect(socket_url(served, path), origin=served.url, additional_headers=ours, proxy=None, subprotocols=SPOKEN) as through:
        through.send(b"hello")
        assert through.recv(timeout=10) == b"hello"


def test_forwarding_headers_are_not_believed(served: Running) -> None:
    sent = {
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-For": "1.2.3.4",
        "Forwarded": "host=evil.example",
        "X-Forwarded-Proto": "https",
    }
    with served.visitor() as me:
        for path in ("/", "/config", "/gradio_api/info"):
            assert "evil.example" not in me.get(path, headers=sent).text


def test_nothing_is_asked_of_other_places(served: Running, locked: Running) -> None:
    with served.visitor() as me:
        page = me.get("/", headers={"Accept": "text/html"})
        assert page.status_code == 200
        named = re.findall(r"""(?:<script[^>]*\bsrc|<link[^>]*\bhref)=["']?(https?:)?//([^"'/>]+)""", page.text)
        assert not [host for _, host in named if not host.startswith("127.0.0.1")]
        assert "preconnect" not in page.text
        policy = page.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert not re.search(r"https?:|\*", policy)
        config = me.get("/config").json()
        assert not config.get("analytics_enabled")
        assert not config.get("is_space")
        login = httpx.get(locked.url + "/login", trust_env=False)
        assert login.status_code == 200
        assert not re.search(r"(src|href)=", login.text)


def test_the_page_cannot_be_framed_elsewhere(served: Running) -> None:
    with served.visitor() as me:
        for path in ("/", "/api/jobs", "/config", "/nothing"):
            headers = me.get(path).headers
            assert headers["x-frame-options"] == "SAMEORIGIN"
            assert "frame-ancestors 'self'" in headers["content-security-policy"]
