"""The threat model of the server (app/server/THREATS.md), third part: jobs, files, calls and viewers."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from app_server import Running, cookies_of, form, owner_of, running, socket_url, submit, tiny_page, until
from page_files import ask, page_folder
from websockets.sync.client import connect

from app.server.limits import Limits
from app.server.refusals import Refused
from app.server.settings import RunSettings

KEY_FILE = ".server/secret"
SPOKEN = [websockets.Subprotocol("viser-v1")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("open"), make_page=tiny_page) as made:
        yield made


@pytest.fixture(scope="module")
def mine(served: Running) -> Iterator[tuple[httpx.Client, dict]]:
    """A visitor with a finished job."""
    with served.visitor() as me:
        yield me, until(me, submit(me, "a.jpg", "b.jpg")["id"], "done")


def test_others_jobs_are_neither_fetched_nor_guessed(served: Running, mine: tuple[httpx.Client, dict]) -> None:
    me, job = mine
    path = me.post(f"/api/jobs/{job['id']}/view").json()["url"]
    absent = job["id"][:-1] + ("0" if job["id"][-1] != "0" else "1")
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{24}", job["id"])
    with served.visitor() as other:
        assert other.get("/api/jobs").json() == []
        for method, where in (
            ("GET", "/api/jobs/{}"), ("DELETE", "/api/jobs/{}"), ("GET", "/api/jobs/{}/files"), ("POST", "/api/jobs/{}/cancel"),
            ("POST", "/api/jobs/{}/again"), ("POST", "/api/jobs/{}/view"), ("POST", "/api/jobs/{}/export?format=ply"),
            ("GET", "/jobs/{}/files/scene/scene.ply"), ("GET", "/jobs/{}/files/photos/a.jpg"),
        ):  # fmt: skip
            answers = [other.request(method, where.format(one)) for one in (job["id"], absent)]
            assert [answer.status_code for answer in answers] == [404, 404], where
            assert answers[0].content == answers[1].content
        assert other.get(path).status_code == 404
        inside = served.service.out / job["id"] / "scene" / "scene.ply"
        assert other.get(f"/gradio_api/file={inside}").status_code == 404
    assert me.get(f"/jobs/{job['id']}/files/scene/scene.ply").content == b"ply"


def call(visitor: httpx.Client, session: str, *paths: str) -> httpx.Response:
    data = [[{"path": path, "meta": {"_type": "gradio.FileData"}} for path in paths]]
    return visitor.post("/gradio_api/queue/join", json={"data": data, "fn_index": 0, "session_hash": session})


def test_others_uploads_cannot_be_named(served: Running) -> None:
    with served.visitor() as me, served.visitor() as other:
        me.get("/")
        other.get("/")
        mine = me.post("/gradio_api/upload", files=form("a.jpg", "b.jpg")).json()
        owner = owner_of(served, other)
        for path in (*mine, "/etc/passwd", str(served.service.out / KEY_FILE), mine[0] + "/../../../x", "http://127.0.0.1:1/x", ""):
            assert call(other, "others", path).status_code in (400, 404), path
            with pytest.raises(Refused):
                served.service.submit(owner, [Path(path)], RunSettings())
            with pytest.raises(Refused):
                served.service.inspect(owner, [Path(path)])
        nested = {"data": [{"a": [{"b": {"path": mine[0]}}]}], "fn_index": 0, "session_hash": "others"}
        assert other.post("/gradio_api/call/count", json=nested).status_code == 400
        assert call(me, "mine", *mine).status_code == 200


def test_gradio_sessions_belong_to_who_began_them(served: Running) -> None:
    with served.visitor() as me, served.visitor() as other:
        me.get("/")
        other.get("/")
        assert call(me, "hash1", *me.post("/gradio_api/upload", files=form("a.jpg")).json()).status_code == 200
        for path in ("/gradio_api/queue/data?session_hash=hash1", "/gradio_api/heartbeat/hash1"):
            assert other.get(path).status_code == 403
        for path in ("queue/join", "cancel", "reset"):
            sent = {"session_hash": "hash1", "fn_index": 0, "event_id": "x", "data": []}
            assert other.post(f"/gradio_api/{path}", json=sent).status_code == 403
        with me.stream("GET", "/gradio_api/queue/data?session_hash=hash1") as news:
            assert any("process_completed" in line for line in news.iter_lines() if "process_completed" in line)


def test_gradio_serves_only_what_a_page_needs(served: Running) -> None:
    with served.visitor() as me:
        for path in (
            "/gradio_api/proxy=http://127.0.0.1:1/", "/gradio_api/runs", "/monitoring", "/monitoring/summary", "/docs",
            "/openapi.json",
            "/gradio_api/stream/x/y/1/playlist.m3u8", "/gradio_api/custom_component/x/y/z/a.js", "/gradio_api/deep_link", "/redoc",
            "/gradio_api/file/etc/passwd", "/gradio_api/vibe-code/", "/gradio_api/profiling/traces", "/gradio_api/dev/reload",
            "/gradio_api/run-history/records", "/assets/../../../../etc/passwd", "/static/%2e%2e/%2e%2e/secret", "//etc/passwd",
        ):  # fmt: skip
            assert me.get(path).status_code in (404, 403), path
        for path in (
            "process_recording",
            "component_server",
            "vibe-edit/",
            "run/count",
            "api/count",
            "stream/1",
            "run-history/connect",
        ):
            assert me.post(f"/gradio_api/{path}", json={}).status_code == 404, path
        assert me.put("/gradio_api/queue/join").status_code == 404
        assert me.get("/config").status_code == 200


def test_only_files_of_the_page_are_sent_from_memory(tmp_path: Path) -> None:
    assets = page_folder(tmp_path)
    for path in (
        "/assets/../secret-DphvyggB.js", "/assets/..%2fsecret-DphvyggB.js", "/assets/link-DphvyggB.js", "/assets/inner-DphvyggB.js",
        "/assets//etc/passwd-DphvyggB.js", "/assets/plain.js", "/assets/none-DphvyggB.js", "/assets/index-DphvyggB.js/", "/assets/",
        "/assets/..\\secret-DphvyggB.js", "/assets/index-DphvyggB.js\n", "/other/index-DphvyggB.js",
    ):  # fmt: skip
        assert ask(assets, path)[0] == 418, path
    assert ask(assets, "/assets/index-DphvyggB.js", "POST")[0] == 418


def verbatim(visitor: httpx.Client, path: str) -> int:
    """Status of a path sent as it is: httpx takes dots out before it sends."""
    sent = http.client.HTTPConnection("127.0.0.1", visitor.base_url.port or 0)
    try:
        sent.putrequest("GET", path.replace(" ", "%20"))
        sent.putheader("Cookie", cookies_of(visitor))
        sent.endheaders()
        return sent.getresponse().status
    finally:
        sent.close()


def test_paths_do_not_leave_a_job(served: Running, mine: tuple[httpx.Client, dict]) -> None:
    me, job = mine
    folder = served.service.folder(job["id"])
    (folder / "scene" / "link.ply").symlink_to("/etc/passwd")
    (folder / "exports").symlink_to("/etc")
    (folder / "scene" / ".hidden").write_text("x")
    try:
        for inside in (
            "../../.server/secret", "scene/../../../.server/secret", "scene/..%2f..%2f..%2f.server%2fsecret",
            "%2e%2e/.server/jobs.sqlite",
            "/etc/passwd", "scene//scene.ply", "scene/./scene.ply", "scene/link.ply", "exports/passwd",
            "scene/.hidden", "order.json",
            "job.json", "run.log", "cache/x", "scene", "scene/scene.ply%00.jpg", "photos/..", "..", "",
            "scene\\..\\..\\x", "x" * 5000,
        ):  # fmt: skip
            assert verbatim(me, f"/jobs/{job['id']}/files/{inside}") in (400, 404), inside
        names = [entry["name"] for entry in me.get(f"/api/jobs/{job['id']}/files").json()]
        assert "scene/scene.ply" in names
        assert not [name for name in names if "link" in name or "hidden" in name or name.startswith("exports")]
        for job_id in ("..", ".server", ".uploads", "%2e%2e", job["id"] + "/.."):
            assert verbatim(me, f"/jobs/{job_id}/files/scene/scene.ply") in (400, 403, 404)
    finally:
        (folder / "exports").unlink()
        (folder / "scene" / "link.ply").unlink()
    assert me.get(f"/jobs/{job['id']}/files/scene/scene.ply").status_code == 200


def test_gradio_file_route_gives_nothing_foreign(served: Running, mine: tuple[httpx.Client, dict]) -> None:
    me, job = mine
    out = served.service.out
    raw = me.post("/gradio_api/upload", files=form("a.jpg")).json()[0]
    for path in (
        "/etc/passwd", str(out / KEY_FILE), str(out / ".server" / "jobs.sqlite"), raw, "http://127.0.0.1:1/x",
        "https://evil.example/",
        str(out / job["id"] / "order.json"), str(out / job["id"] / ".." / ".server" / "secret"), "relative", "", "../../etc/passwd",
        str(Path(__file__)), "/proc/self/environ", str(out / ".uploads"),
    ):  # fmt: skip
        assert me.get(f"/gradio_api/file={path}").status_code == 404, path
    assert me.get(f"/gradio_api/file={out / job['id'] / 'scene' / 'scene.ply'}").content == b"ply"


def test_settings_cannot_name_files(served: Running) -> None:
    with served.visitor() as me:
        for given in (
            {"cameras": "/etc/passwd"}, {"cameras": "../other/cameras.json"}, {"model": "../x"}, {"intrinsics": "/etc/passwd"},
            {"weights": "/x"}, {"masks": "/etc"}, {"capture": {"masks": "/etc"}}, {"device": "cuda"}, {"scale_from": "a\nb=1m"},
        ):  # fmt: skip
            answer = me.post("/api/jobs", files=form("a.jpg", "b.jpg"), data={"settings": json.dumps(given)})
            assert answer.status_code == 400, given


def test_jobs_stop_at_their_limits(tmp_path: Path) -> None:
    with running(tmp_path, limits=Limits(max_waiting=2, max_jobs=3, keep_free_gb=0.0)) as served, served.visitor() as me:
        jobs = [submit(me, "slow.jpg", "b.jpg"), submit(me, "c.jpg", "d.jpg")]
        assert me.post("/api/jobs", files=form("a.jpg", "b.jpg")).status_code == 429
        with served.visitor() as other:
            assert other.post("/api/jobs", files=form("a.jpg", "b.jpg")).status_code == 201
        for job in jobs:
            me.post(f"/api/jobs/{job['id']}/cancel")
            until(me, job["id"], "stopped", "done")
        assert me.post("/api/jobs", files=form("a.jpg", "b.jpg")).status_code == 201
        assert me.post("/api/jobs", files=form("a.jpg", "b.jpg")).status_code == 429


def test_asking_often_starts_one_process_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many visitors who have photos looked at share one waiting process of a kind, and the server takes both along when it ends."""
    with running(tmp_path) as alone:
        begun: list[subprocess.Popen] = []
        for house in (alone.service.worker, alone.service.viewers):
            spawn = house._spawn

            def counted(*words: Any, spawn: Callable[..., subprocess.Popen] = spawn) -> subprocess.Popen:
                begun.append(spawn(*words))
                return begun[-1]

            monkeypatch.setattr(house, "_spawn", counted)
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(warm) for warm in 8 * [alone.service.worker.warm, alone.service.viewers.warm]]:
                done.result()
        assert len(begun) == 2
        assert [child.poll() for child in begun] == [None, None]
    assert all(child.poll() is not None for child in begun)


def test_viewers_answer_only_through_the_guard(served: Running, mine: tuple[httpx.Client, dict]) -> None:
    me, job = mine
    path = me.post(f"/api/jobs/{job['id']}/view").json()["url"]
    assert re.fullmatch(rf"/view/{job['id']}/[\w-]{{32}}/", path)
    seen = me.get(path + "x").json()
    assert seen == {"path": "/x", "cookie": None, "origin": None}
    secret = path.split("/")[3]
    for wrong in (path.replace(secret, "x" * 32), path.replace(secret, secret[:-1]), f"/view/{job['id']}/", f"/view/x/{secret}/"):
        assert me.get(wrong).status_code == 404
    viewer = next(iter(served.service.viewers._open.values()))
    assert httpx.get(f"http://127.0.0.1:{viewer.port}/", trust_env=False).status_code == 403
    with pytest.raises(websockets.InvalidStatus):
        connect(f"ws://127.0.0.1:{viewer.port}/", proxy=None)
    with served.visitor() as other:
        other.get("/")
        assert other.get(path).status_code == 404
        with pytest.raises(websockets.InvalidStatus):
            connect(socket_url(served, path), additional_headers={"Cookie": cookies_of(other)}, proxy=None, subprotocols=SPOKEN)
    ours = {"Cookie": cookies_of(me)}
    with connect(socket_url(served, path[:-1]), additional_headers=ours, subprotocols=SPOKEN, proxy=None, max_size=None) as through:
        assert through.subprotocol == "viser-v1"
        for message in ("text", b"\0" * 3_000_000):
            through.send(message)
            assert through.recv(timeout=20) == message


def test_viewers_are_closed_when_idle(tmp_path: Path) -> None:
    limits = Limits(viewer_idle_s=2.0, max_viewers=1, keep_free_gb=0.0)
    with running(tmp_path, limits=limits) as served, served.visitor() as me:
        jobs = [until(me, submit(me, "a.jpg", "b.jpg")["id"], "done")["id"] for _ in range(2)]
        first = me.post(f"/api/jobs/{jobs[0]}/view").json()["url"]
        with connect(socket_url(served, first), additional_headers={"Cookie": cookies_of(me)}, proxy=None, subprotocols=SPOKEN):
            time.sleep(2.5)
            served.service.viewers.tidy()
            assert len(served.service.viewers) == 1
            busy = me.post(f"/api/jobs/{jobs[1]}/view")
            assert (busy.status_code, "in use" in busy.json()["error"]) == (503, True)
        time.sleep(2.5)
        served.service.viewers.tidy()
        assert len(served.service.viewers) == 0
        assert me.get(first).status_code == 404
        children = []
        for job in jobs:
            me.post(f"/api/jobs/{job}/view")
            children += [viewer.child for viewer in served.service.viewers._open.values() if viewer.child is not None]
        assert [child.poll() is None for child in dict.fromkeys(children)] == [False, True]
        me.delete(f"/api/jobs/{jobs[1]}")
        assert children[-1].poll() is not None


def test_made_pages_run_in_a_sandbox(served: Running, mine: tuple[httpx.Client, dict]) -> None:
    me, job = mine
    page = me.get(f"/jobs/{job['id']}/files/scene/report.html?inline=1")
    policy = page.headers["content-security-policy"]
    assert page.headers["content-type"].startswith("text/html")
    assert policy.startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in policy
    assert "default-src 'none'" in policy
    assert "connect-src data: blob:" in policy
    saved = me.get(f"/jobs/{job['id']}/files/scene/report.html")
    assert saved.headers["content-disposition"].startswith("attachment")


def test_files_are_saved_not_shown(served: Running, mine: tuple[httpx.Client, dict]) -> None:
    me, job = mine
    folder = served.service.folder(job["id"])
    for name in ("x.svg", "x.xml", "x.js", "x.ply"):
        (folder / "scene" / name).write_text("<svg/>")
        answer = me.get(f"/jobs/{job['id']}/files/scene/{name}?inline=1")
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["content-type"] == "application/octet-stream"
        (folder / "scene" / name).unlink()
    photo = me.get(f"/jobs/{job['id']}/files/photos/a.jpg?inline=1")
    assert (photo.headers["content-type"], photo.headers["x-content-type-options"]) == ("image/jpeg", "nosniff")
    part = me.get(f"/jobs/{job['id']}/files/photos/a.jpg", headers={"Range": "bytes=0-1"})
    assert (part.status_code, part.content) == (206, b"\xff\xd8")


def test_long_calls_are_refused(served: Running) -> None:
    with served.visitor() as me:
        for body, status in ((b"[" * 200_000, 400), (b'{"data": "' + b"x" * 5_000_000 + b'"}', 413), (b"[1]", 400), (b"{", 400)):
            assert me.post("/gradio_api/queue/join", content=body).status_code == status
        deep = b'{"data": ' + b"[" * 500 + b"]" * 500 + b', "session_hash": 5}'
        assert me.post("/gradio_api/queue/join", content=deep).status_code == 403
