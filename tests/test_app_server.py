"""The server: jobs that survive, queue, limits, files, exports. Reconstructions are stood in for; the rest is the real thing."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from app_server import Running, form, picture, running, submit, until

from app.server.limits import Limits
from app.server.refusals import NotThere, Refused
from app.server.settings import PRESETS, RunSettings
from app.server.site import without_outside
from app.server.store import Row, Store
from app.server.take_home import export, pack
from app.server.worker import Worker


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("server")) as made:
        yield made


def test_photos_become_a_scene_with_files_to_take_home(served: Running) -> None:
    with served.visitor() as me:
        begun = submit(me, "a.jpg", "b.jpg", name="House", settings='{"preset": "fast", "holdout": 4}')
        assert begun["name"] == "House"
        done = until(me, begun["id"], "done", "failed")
        assert done["state"] == "done"
        assert done["photos"] == ["a.jpg", "b.jpg"]
        assert done["stages"]["photos"] == {"fraction": 1.0, "message": "", "seconds": 0.1}
        assert done["settings"]["holdout"] == 4
        assert (done["offending"], done["photo_words"]) == (["b.jpg"], {"b.jpg": ["blurred"]})
        files = {entry["name"]: entry for entry in me.get(done["files"]).json()}
        assert {"photos/a.jpg", "thumbs/a.jpg.jpg", "early/cameras.json", "scene/scene.ply", "cover.jpg"} <= set(files)
        assert me.get(files["scene/scene.ply"]["url"]).content == b"ply"
        assert [job["id"] for job in me.get("/api/jobs").json()] == [done["id"]]


def test_jobs_run_one_after_another_and_each_end_is_told_in_words(served: Running) -> None:
    with served.visitor() as me:
        names = ("bad.jpg", "error.jpg", "killed.jpg", "hopeless.jpg", "z.jpg")
        jobs = [submit(me, name, "other.jpg") for name in names]
        assert [job["position"] > 0 for job in jobs[1:]] == [True] * 4
        bad, error, killed, hopeless, last = (until(me, job["id"], "done", "failed") for job in jobs)
        assert (bad["state"], bad["reason"]) == ("failed", "bad.jpg shows <another> place.")
        assert bad["offending"] == ["bad.jpg"]
        assert "error of the program while finding cameras" in error["reason"]
        assert (killed["state"], killed["resumed"]) == ("done", 1)
        assert "while finding cameras" in hopeless["reason"]
        assert "smaller" in hopeless["remedy"]
        assert last["state"] == "done"
        assert (served.service.folder(hopeless["id"]) / "starts").read_text() == "3"


def test_a_waiting_and_a_running_job_stop_on_request_and_go_on(served: Running) -> None:
    with served.visitor() as me:
        running_job, waiting = submit(me, "slow.jpg", "b.jpg"), submit(me, "c.jpg", "d.jpg")
        until(me, running_job["id"], "running")
        assert me.post(f"/api/jobs/{waiting['id']}/cancel").json()["state"] == "stopped"
        me.post(f"/api/jobs/{running_job['id']}/cancel")
        assert "Stopped on request" in until(me, running_job["id"], "stopped")["reason"]
        assert me.post(f"/api/jobs/{waiting['id']}/again").status_code == 200
        assert until(me, waiting["id"], "done", "failed")["state"] == "done"
        assert me.post(f"/api/jobs/{waiting['id']}/again").status_code == 409


def test_a_job_that_does_not_stop_is_ended_and_not_begun_again(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.server.worker.STOP_S", 0.3)
    with served.visitor() as me:
        job = submit(me, "stubborn.jpg", "b.jpg")
        while not until(me, job["id"], "running")["early"]["cameras"]:
            time.sleep(0.1)
        me.post(f"/api/jobs/{job['id']}/cancel")
        stopped = until(me, job["id"], "stopped", "done", "failed")
        assert (stopped["state"], stopped["resumed"]) == ("stopped", 0)
        assert (served.service.folder(job["id"]) / "starts").read_text() == "1"


def test_a_deleted_job_leaves_nothing(served: Running) -> None:
    with served.visitor() as me:
        job = submit(me, "slow.jpg", "b.jpg")
        until(me, job["id"], "running")
        assert me.delete(f"/api/jobs/{job['id']}").status_code == 204
        assert me.get(f"/api/jobs/{job['id']}").status_code == 404
        assert not list(served.service.out.glob(f"*{job['id']}*"))


def test_a_server_that_ends_continues_its_jobs(tmp_path: Path) -> None:
    with running(tmp_path) as first, first.visitor() as me:
        begun = submit(me, "slow.jpg", "b.jpg"), submit(me, "c.jpg", "d.jpg")
        until(me, begun[0]["id"], "running")
        cookies = me.cookies
    with running(tmp_path) as second, second.visitor() as me:
        me.cookies = cookies
        states = {job["id"]: job["state"] for job in me.get("/api/jobs").json()}
        assert set(states) == {job["id"] for job in begun}
        until(me, begun[0]["id"], "running")
        me.post(f"/api/jobs/{begun[0]['id']}/cancel")
        assert until(me, begun[1]["id"], "done", "failed")["state"] == "done"


def test_a_second_server_on_the_same_folder_is_refused(served: Running) -> None:
    from app.server.service import Service

    with pytest.raises(Refused, match="Another server"):
        Service(served.service.out, Limits())


def test_what_only_one_photo_or_no_photo_gives_is_said(served: Running) -> None:
    with served.visitor() as me:
        one = until(me, submit(me, "a.jpg")["id"], "failed")
        assert "Only one photo" in one["reason"]
        answer = me.post("/api/jobs", files={"files": ("a.txt", b"/etc/passwd\n", "text/plain")})
        assert "no photo, video or zip" in until(me, answer.json()["id"], "failed")["reason"]
        assert me.post("/api/jobs", files=form("a.jpg"), data={"settings": "{"}).status_code == 400
        assert me.post("/api/jobs", files=form("a.jpg"), data={"settings": '{"no": 1}'}).json()["error"].startswith("There is no")


def test_uploads_are_understood_before_a_run(served: Running, tmp_path: Path) -> None:
    archive = tmp_path / "two.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("in/c.jpg", picture(7))
        packed.writestr("broken.jpg", b"\xff\xd8\xff")
    with served.visitor(Authorization="Bearer a-secret-of-mine-01") as me:
        files = [
            *form("a.jpg", "b.jpg"),
            ("files", ("a.jpg", picture(0), "image/jpeg")),
            ("files", ("two.zip", archive.read_bytes(), "")),
        ]
        paths = [Path(path) for path in me.post("/gradio_api/upload", files=files).json()]
        owner = paths[0].relative_to(served.service.uploads.root).parts[0]
        seen = served.service.inspect(owner, paths, RunSettings(preset="fast", long_side=320))
        usable = [photo for photo in seen.photos if not photo.skipped]
        assert [photo.name for photo in usable] == ["a.jpg", "b.jpg", "a_2.jpg", "in_c.jpg"]
        assert usable[2].same_as == "a.jpg"
        assert [photo.name for photo in seen.photos if photo.skipped] == ["broken.jpg"]
        assert set(seen.estimates) == {*PRESETS, ""}
        assert seen.estimates[""].total_s < seen.estimates["best"].total_s
        assert all(photo.thumbnail is not None for photo in usable)
        thumb = me.get(served.service.thumbnail_path(owner, usable[0].thumbnail))
        assert (thumb.status_code, thumb.headers["content-type"]) == (200, "image/jpeg")
        turned = {usable[1].path: 1}
        view = served.service.submit(owner, [usable[1].path, usable[3].path], RunSettings(), turns=turned)
        done = until(me, view.id, "done", "failed")
        assert done["photos"] == ["b.jpg", "in_c.jpg"]
        from PIL import Image

        with Image.open(served.service.folder(view.id) / "photos" / "b.jpg") as photo:
            assert photo.getexif()[274] == 6


def test_exports_are_made_once_and_again_when_the_scene_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def fake(scene: Path, target: Path, cores: int) -> None:
        made.append(target)
        target.write_bytes(b"x")

    monkeypatch.setattr("app.server.take_home.run_export", fake)
    (tmp_path / "scene" / "colmap").mkdir(parents=True)
    (tmp_path / "scene" / "scene.ply").write_bytes(b"ply")
    (tmp_path / "scene" / "colmap" / "points3D.txt").write_text("")
    os.utime(tmp_path / "scene" / "scene.ply", (1.0, 1.0))
    for _ in range(2):
        assert export(tmp_path, "spz").name == "scene.spz"
    assert len(made) == 1
    os.utime(tmp_path / "scene" / "scene.ply", (4e9, 4e9))
    export(tmp_path, "spz")
    assert len(made) == 2
    assert export(tmp_path, "ply") == tmp_path / "scene" / "scene.ply"
    with zipfile.ZipFile(export(tmp_path, "colmap")) as archive:
        assert archive.namelist() == ["colmap/points3D.txt"]
    with zipfile.ZipFile(export(tmp_path, "zip")) as archive:
        assert {"scene/scene.ply", "exports/scene.spz", "exports/colmap.zip"} <= set(archive.namelist())
    for kind, status in (("exe", 404), ("video", 404)):
        with pytest.raises(Refused) as refused:
            export(tmp_path, kind)
        assert refused.value.status == status


def test_links_are_not_packed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").symlink_to("/etc/passwd")
    pack(list(tmp_path.iterdir()), tmp_path, tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == ["a"]


def test_settings_take_what_fits_and_nothing_that_names_a_file() -> None:
    assert RunSettings.read(RunSettings(preset="best", holdout=5).plain()) == RunSettings(preset="best", holdout=5)
    assert RunSettings(preset="fast").chosen("polish_s") == 0.0
    assert RunSettings(preset="fast", polish_s=5.0).config().polish == 5.0
    for wrong in (
        {"cameras": "/etc/passwd"}, {"cameras": "../x"}, {"model": "a.b"}, {"intrinsics": "/etc/passwd"}, {"intrinsics": "a.json"},
        {"holdout": 1}, {"holdout": True}, {"long_side": 1e9},
            {"long_side": 10**400}, {"fps": 10**400}, {"seed": -1}, {"fps": float("inf")},
            {"polish_s": float("nan")}, {"fps": "2"}, {"preset": []},
        {"scale_from": "x"}, {"video": "yes"}, {"masks": "/etc"}, {"weights": "/x"},
    ):  # fmt: skip
        with pytest.raises(Refused):
            RunSettings.read(wrong)


def test_rows_outlive_a_full_disk(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite")
    store.add(Row(id="a", owner="me", name="A", created_s=1.0))
    pages = store._base.execute("PRAGMA page_count").fetchone()[0]
    store._base.execute(f"PRAGMA max_page_count={pages}")  # the file may not grow any more, as on a full disk
    store.change("a", advice=("long " * 50_000,), state="running")
    assert store.get("a").state == "running"
    with pytest.raises(Refused) as refused:
        store.add(Row(id="b", owner="me", name="B" * 100_000, created_s=2.0))
    assert refused.value.status == 507
    store._base.execute("PRAGMA max_page_count=100000")
    store.write_late()
    with sqlite3.connect(tmp_path / "jobs.sqlite") as other:
        assert json.loads(other.execute("SELECT row FROM jobs WHERE id='a'").fetchone()[0])["state"] == "running"
    other.close()
    with pytest.raises(NotThere):
        store.get("b")
    store.close()


def test_old_jobs_and_forgotten_uploads_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.server.service.TIDY_S", 0.1)
    limits = Limits(keep_free_gb=0.0, max_age_days=1e-5, upload_hours=1e-4)
    with running(tmp_path, limits=limits) as served, served.visitor() as me:
        job = submit(me, "a.jpg", "b.jpg")["id"]
        deadline = time.monotonic() + 60
        while me.get("/api/jobs").json() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert me.get(f"/api/jobs/{job}").status_code == 404
        time.sleep(1.0)
        assert not list(tmp_path.glob("2*"))
        assert not [path for path in served.service.uploads.root.rglob("*") if path.is_file()]


def test_a_reconstruction_keeps_to_its_cores_and_hears_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    from app.server.processes import child_environment

    monkeypatch.setenv("RECON_AUTH", "me:secret")
    found = child_environment(2)
    assert (found["OMP_NUM_THREADS"], found["NUMBA_NUM_THREADS"], found.get("RECON_AUTH")) == ("2", "2", None)
    code = "from app.server.run_child import keep_to_cores; import os; keep_to_cores(1); print(len(os.sched_getaffinity(0)))"
    if hasattr(os, "sched_getaffinity"):
        said = subprocess.run([sys.executable, "-c", code], env=found, capture_output=True, text=True, check=True).stdout
        assert said.strip() == "1"


def test_gradio_html_loses_its_outside_tags() -> None:
    page = b"""<link rel="preconnect" href="https://fonts.googleapis.com"><link rel="stylesheet" href="/theme.css">
    <script src="https://cdnjs.example/x.js" async></script><script type="module" src="./assets/a.js"></script><link href='http://x/y'>"""
    left = without_outside(page)
    assert b"theme.css" in left
    assert b"assets/a.js" in left
    assert b"http" not in left
    assert b"preconnect" not in left


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as ballast:
        for _ in range(4096):
            try:
                ballast.write(bytes(4096))
            except OSError:
                return
    raise AssertionError("the disk did not fill")


def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        with running(disk / "out") as served, served.visitor() as me:
            kept, slow = until(me, submit(me, "a.jpg", "b.jpg")["id"], "done"), submit(me, "slow.jpg", "b.jpg")
            until(me, slow["id"], "running")
            fill(disk / "ballast")
            refused = me.post("/api/jobs", files=form(*[f"{number}.jpg" for number in range(40)]))
            assert refused.status_code == 507
            assert "space" in refused.json()["remedy"]
            me.post(f"/api/jobs/{slow['id']}/cancel")
            assert until(me, slow["id"], "stopped", "failed")["state"] in ("stopped", "failed")
            assert me.get(f"/jobs/{kept['id']}/files/scene/scene.ply").content == b"ply"
            (disk / "ballast").unlink()
            assert until(me, submit(me, "c.jpg", "d.jpg")["id"], "done", "failed")["state"] == "done"
        with running(disk / "out") as served:
            assert sorted(row.state for row in served.service.store.rows())[:2] == ["done", "done"]
            assert not [row for row in served.service.store.rows() if not row.over]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def at_rest(worker: Worker) -> None:
    """Wait until no run is at work; a row says "done" a moment before."""
    deadline = time.monotonic() + 20.0
    while worker._running:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill(child: subprocess.Popen) -> None:
    child.kill()
    child.wait()


def test_processes_are_started_ahead_and_used(served: Running) -> None:
    worker, viewers = served.service.worker, served.service.viewers
    at_rest(worker)
    worker.warm()
    ahead = worker._ahead
    assert ahead is not None
    worker.warm()  # one is enough
    assert worker._ahead is ahead
    with served.visitor() as me:
        done = until(me, submit(me, "a.jpg", "b.jpg")["id"], "done", "failed")
        assert done["state"] == "done"
        assert (served.service.folder(done["id"]) / "pid").read_text() == str(ahead.pid)
        assert worker._ahead is None
        waiting = viewers._ahead
        assert waiting is not None, "its cameras were found, so somebody may want to see the scene"
        path = me.post(f"/api/jobs/{done['id']}/view").json()["url"]
        assert me.get(path + "scene").text == str(served.service.folder(done["id"]) / "scene")
        assert waiting[0] in [viewer.child for viewer in viewers._open.values()]


def test_a_process_that_died_before_its_run_is_replaced(served: Running) -> None:
    worker, viewers = served.service.worker, served.service.viewers
    at_rest(worker)
    worker.warm()
    assert worker._ahead is not None
    kill(worker._ahead)
    with served.visitor() as me:
        done = until(me, submit(me, "a.jpg", "b.jpg")["id"], "done", "failed")
        assert (done["state"], done["resumed"]) == ("done", 0)
        assert viewers._ahead is not None
        kill(viewers._ahead[0])
        assert me.get(me.post(f"/api/jobs/{done['id']}/view").json()["url"] + "x").status_code == 200
