"""The server of the app under load and under attack by its own machine: nothing lost, nothing mixed.

    python tests/benchmarks/bench_app.py                     # all parts
    python tests/benchmarks/bench_app.py start early uploads viewers kills disk --photos 6

start: seconds until the page answers. early: seconds to cameras, first splat and scene of the sample, through the page's server.
uploads: 20 visitors send small photos at once. viewers: 5 visitors look at one scene. kills: SIGKILL of the server, and of the
reconstruction, in every stage. disk: the disk fills up while a scene is made (needs the right to mount).
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
SAMPLE = ROOT / "data" / "sample"
QUICK = {"preset": "fast", "long_side": 192, "holdout": 4, "polish_s": 3.0, "max_gaussians": 3000}
GAZE = {
    "type": "ViewerCameraMessage", "wxyz": (1.0, 0.0, 0.0, 0.0), "position": (0.0, 0.0, -3.0), "fov": 0.9, "near": 0.01,
    "far": 1000.0, "image_height": 270, "image_width": 480, "look_at": (0.0, 0.0, 0.0), "up_direction": (0.0, -1.0, 0.0),
}  # fmt: skip
"""What a window says first: how it looks at the scene."""
CALM = json.dumps({**QUICK, "video": False})
STAGES = ("photos", "cameras", "depth", "gaussians", "polish", "score", "write")
LONG_POLISH_S = 15.0
"""Polish of the runs that are killed in it; a short one would be over before its beginning is seen."""
VISITORS, LOOKERS = 20, 5


class App:
    """A server in a process of its own.

    Args:
        out: its folder.
        flags: more words of the command line.
    """

    def __init__(self, out: Path, *flags: str) -> None:
        self.words = [sys.executable, "-m", "app.cli", "app", "--port", "0", "--out", str(out), "--keep-free-gb", "0", *flags]
        self.visitor = httpx.Client(headers={"Authorization": "Bearer bench-bench-bench-bench"}, timeout=120.0, trust_env=False)
        self.start()

    def start(self) -> float:
        """Start, and return the seconds until the page was there."""
        began = time.perf_counter()
        self.process = subprocess.Popen(
            self.words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "http" not in line:
            raise RuntimeError(line + self.process.stdout.read())
        self.visitor.base_url = line.split()[1]
        assert self.visitor.get("/").status_code == 200
        return time.perf_counter() - began

    def stop(self, signum: int = signal.SIGTERM) -> None:
        os.kill(self.process.pid, signum)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def submit(self, photos: list[Path], settings: dict) -> str:
        files = [("files", (path.name, path.read_bytes(), "image/jpeg")) for path in photos]
        answer = self.visitor.post("/api/jobs", files=files, data={"settings": json.dumps(settings)})
        if answer.status_code != 201:
            raise RuntimeError(answer.text)
        return answer.json()["id"]

    def watch(self, job: str, timeout_s: float = 3600.0) -> Iterator[dict]:
        """Views of a job at each change, until it is over."""
        deadline, since = time.monotonic() + timeout_s, 0
        while time.monotonic() < deadline:
            view = self.visitor.get(f"/api/jobs/{job}", params={"wait": 10, "since": since}).json()
            since = view["change"]
            yield view
            if view["state"] in ("done", "failed", "stopped"):
                return
        raise RuntimeError(f"{job} took too long")

    def report(self, job: str) -> dict:
        return self.visitor.get(f"/jobs/{job}/files/scene/report.json").json()


@contextmanager
def served(out: Path, *flags: str) -> Iterator[App]:
    app = App(out, *flags)
    try:
        yield app
    finally:
        if app.process.poll() is None:
            app.stop()


def bench_start(folder: Path, photos: list[Path]) -> dict:
    """Seconds from the command to the page's first answer, three times."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        with served(folder / "start"):
            seconds.append(round(time.perf_counter() - began, 2))
    return {"seconds": seconds}


def bench_early(folder: Path, photos: list[Path]) -> dict:
    """The sample with the preset balanced: when cameras, a first splat and the scene are there, from the moment of sending."""
    found: dict[str, float] = {}
    with served(folder / "early") as app:
        began = time.perf_counter()
        job = app.submit(sorted(SAMPLE.rglob("*.jpg")), {"preset": "balanced"})
        for view in app.watch(job):
            for name, there in {**view["early"], "done": view["state"] == "done", "prepared": bool(view["photos"])}.items():
                if there:
                    found.setdefault(name, round(time.perf_counter() - began, 1))
        return {"state": view["state"], "seconds": found, "psnr": app.report(job)["quality"]}


def bench_uploads(folder: Path, photos: list[Path]) -> dict:
    """Twenty visitors at once, each with photos of their own: every job ends, with its own photos and no other's."""
    from PIL import Image

    mine: list[list[Path]] = []
    for visitor in range(VISITORS):
        place = folder / "given" / str(visitor)
        place.mkdir(parents=True)
        for index, photo in enumerate(photos):
            with Image.open(photo) as picture:  # a corner of another colour tells photos of visitors apart
                small = picture.convert("RGB").resize((320, 240))
                small.paste(((visitor * 37) % 256, (visitor * 91) % 256, index * 9), (0, 0, 16, 16))
                small.save(place / f"{index}.jpg", quality=95, subsampling=0)
        mine.append(sorted(place.iterdir()))
    with served(folder / "uploads") as app:

        def visit(visitor: int) -> tuple[int, str, float]:
            began = time.perf_counter()
            headers = {"Authorization": f"Bearer visitor-number-{visitor:04d}"}
            files = [("files", (path.name, path.read_bytes(), "image/jpeg")) for path in mine[visitor]]
            answer = httpx.post(
                f"{app.visitor.base_url}/api/jobs", headers=headers, files=files, data={"settings": CALM},
                timeout=300.0, trust_env=False,
            )  # fmt: skip
            return answer.status_code, answer.json().get("id", ""), time.perf_counter() - began

        with concurrent.futures.ThreadPoolExecutor(VISITORS) as pool:
            sent = list(pool.map(visit, range(VISITORS)))
        began, states, mixed = time.perf_counter(), [], 0
        for visitor, (_, job, _) in enumerate(sent):
            app.visitor.headers["Authorization"] = f"Bearer visitor-number-{visitor:04d}"
            states.append(list(app.watch(job))[-1]["state"])
            stored = [app.visitor.get(f"/jobs/{job}/files/photos/{path.name}").content for path in mine[visitor]]
            wanted = [decoded(path.read_bytes()) for path in mine[visitor]]
            mixed += [decoded(data) for data in stored] != wanted
            mixed += len(app.visitor.get("/api/jobs").json()) != 1
        answers = [status for status, _, _ in sent]
        return {
            "accepted": answers.count(201), "longest_answer_s": round(max(s for _, _, s in sent), 2), "mixed": mixed,
            "states": {state: states.count(state) for state in set(states)}, "all_done_s": round(time.perf_counter() - began, 1),
        }  # fmt: skip


def decoded(data: bytes) -> str:
    """Digest of a picture's pixels."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        return hashlib.sha256(picture.tobytes()).hexdigest()


def bench_viewers(folder: Path, photos: list[Path]) -> dict:
    """Five visitors' windows on one scene: each gets the whole scene through the app's port."""
    import msgspec
    import viser
    import websockets
    from websockets.sync.client import connect

    with served(folder / "viewers") as app:
        job = app.submit(photos, {**QUICK, "video": False})
        assert list(app.watch(job))[-1]["state"] == "done"
        began = time.perf_counter()
        path = app.visitor.post(f"/api/jobs/{job}/view").json()["url"]
        opened_s = time.perf_counter() - began
        port = app.visitor.base_url.port

        def look(_: int) -> tuple[int, float]:
            began, got = time.perf_counter(), 0
            spoken = [websockets.Subprotocol(f"viser-v{viser.__version__}")]
            with connect(
                f"ws://127.0.0.1:{port}{path}", additional_headers={"Authorization": app.visitor.headers["Authorization"]},
                subprotocols=spoken, max_size=None, proxy=None, open_timeout=60,
            ) as window:  # fmt: skip
                window.send(msgspec.msgpack.encode(GAZE))
                last = time.perf_counter()
                try:
                    while True:
                        got += len(window.recv(timeout=10.0))
                        last = time.perf_counter()
                except TimeoutError:
                    return got, last - began

        with concurrent.futures.ThreadPoolExecutor(LOOKERS) as pool:
            seen = list(pool.map(look, range(LOOKERS)))
        again = app.visitor.get(path).status_code
    return {
        "opened_s": round(opened_s, 1),
        "bytes": [got for got, _ in seen],
        "seconds": [round(s, 1) for _, s in seen],
        "after": again,
    }


def reconstructions(job: str) -> list[int]:
    """Processes that work in a job's folder (Linux)."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if b"app.server.run_child" in (process / "cmdline").read_bytes() and os.readlink(process / "cwd").endswith(job):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def bench_kills(folder: Path, photos: list[Path]) -> dict:
    """SIGKILL of the server, then of the reconstruction, when each stage begins; the job goes on and ends like a calm one."""
    settings = {**QUICK, "video": False}
    found: dict[str, dict] = {}
    with served(folder / "kills") as app:
        calm = app.submit(photos, settings)
        assert list(app.watch(calm))[-1]["state"] == "done"
        wanted = app.report(calm)
        for victim in ("server", "reconstruction"):
            for stage in STAGES:
                job = app.submit(photos, settings | ({"polish_s": LONG_POLISH_S} if stage == "polish" else {}))
                for view in app.watch(job):
                    if stage in view["stages"] and view["state"] == "running":
                        break
                if view["state"] != "running":
                    found[f"{victim}, {stage}"] = {"state": f"{view['state']} before it could be killed"}
                    continue
                if victim == "server":
                    app.stop(signal.SIGKILL)
                    app.start()
                else:
                    for pid in reconstructions(job):
                        os.kill(pid, signal.SIGKILL)
                last = list(app.watch(job))[-1]
                report = app.report(job) if last["state"] == "done" else {}
                found[f"{victim}, {stage}"] = {
                    "state": last["state"], "resumed": last["resumed"], "from_cache": report.get("stages", {}).get("from_cache"),
                    "photos_used": report.get("counts", {}).get("used") == wanted["counts"]["used"],
                }  # fmt: skip
                print(victim, stage, found[f"{victim}, {stage}"], flush=True)
        kept = len(app.visitor.get("/api/jobs").json())
    return {"jobs_kept": kept, "of": 1 + 2 * len(STAGES), **found}


def bench_disk(folder: Path, photos: list[Path]) -> dict:
    """A small disk that something else fills while a scene is made: words, nothing lost, and it goes on once there is room."""
    disk = folder / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(disk)], capture_output=True, check=False).returncode:
        return {"skipped": "this user may not mount a small disk"}
    try:
        with served(disk / "out") as app:
            job = app.submit(photos, {**QUICK, "video": False})
            for view in app.watch(job):
                if "cameras" in view["stages"]:
                    break
            fill(disk / "ballast")
            refused = app.visitor.post("/api/jobs", files={"files": ("a.jpg", photos[0].read_bytes(), "image/jpeg")})
            full = list(app.watch(job))[-1]
            app.stop(signal.SIGKILL)
            (disk / "ballast").unlink()
            app.start()
            there = [one["state"] for one in app.visitor.get("/api/jobs").json()]
            app.visitor.post(f"/api/jobs/{job}/again")
            last = list(app.watch(job))[-1]
            return {
                "upload_when_full": [refused.status_code, refused.json().get("error")],
                "job_when_full": [full["state"], full["reason"]],
                "after_restart": there,
                "once_there_is_room": [last["state"], last["reason"]],
            }  # fmt: skip
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            return


PARTS = {name.removeprefix("bench_"): part for name, part in list(globals().items()) if name.startswith("bench_")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--photos", type=int, default=6, help="photos of the sample that quick jobs take")
    options = parser.parse_args()
    photos = sorted(SAMPLE.rglob("*.jpg"))[: options.photos]
    for name in options.parts:
        folder = Path(tempfile.mkdtemp(prefix="recon-bench-app-"))
        try:
            print(name, json.dumps(PARTS[name](folder, photos)), flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
