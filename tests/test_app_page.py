"""The web page and its jobs: what is dropped becomes a scene, errors come in words, nothing is shared."""

from __future__ import annotations

import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from app.jobs import Job, JobRunner
from app.page import Site, draw_status, gather
from recon.config import PipelineConfig
from recon.errors import CannotReconstruct
from recon.pipeline import Result
from recon.progress import Progress
from recon.records import Gaussians, Scene

import helpers


def make_result(out: Path) -> Result:
    gaussians = Gaussians(
        means=torch.rand(20, 3),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(20, 1),
        scales=torch.full((20, 3), 0.1),
        opacities=torch.full((20,), 0.9),
        sh=torch.rand(20, 1, 3),
    )
    report = {
        "counts": {"gaussians": 20, "used": 2},
        "seconds": {"depth": 1.0},
        "warnings": ["<b>c.jpg</b> lost"],
        "quality": {"n_scored": 0},
    }
    return Result(scene=Scene(gaussians=gaussians), report=report, out=out)


def fake_start(photos, out: Path, config: PipelineConfig, progress: Progress) -> Result:
    """Fail, wait for a stop or succeed, by the names of the photos; a stand-in for the pipeline with its contract."""
    names = sorted(path.name for path in Path(photos[0]).iterdir())
    progress.update("photos", 1.0, f"{len(names)} photos")
    if "bad.jpg" in names:
        raise CannotReconstruct("The photos show <different> places.", "Take overlapping photos.")
    if "crash.jpg" in names:
        raise ZeroDivisionError("ours")
    if "slow.jpg" in names:
        for step in range(600):
            progress.update("depth", step / 600)
            time.sleep(0.05)
    out.mkdir(parents=True)
    (out / "scene.ply").write_bytes(b"ply")
    Image.new("RGB", (60, 20), (200, 30, 30)).save(out / "preview.png")
    progress.update("write", 1.0)
    return make_result(out)


def write_photo(path: Path) -> str:
    Image.new("RGB", (32, 24), (10, 20, 30)).save(path)
    return str(path)


def make_job(folder: Path, *names: str) -> Job:
    photos = folder / "photos"
    photos.mkdir(parents=True)
    for name in names:
        write_photo(photos / name)
    return Job(photos=[photos], out=folder / "scene", config=PipelineConfig())


def wait_until_finished(job: Job, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not job.finished and time.monotonic() < deadline:
        job.wait(0.2)
    assert job.finished


@pytest.fixture
def runner() -> Iterator[JobRunner]:
    made = JobRunner(fake_start)
    yield made
    made.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, str]]:
    made = Site(tmp_path_factory.mktemp("app"), viewer_port=8290, start_job=fake_start)
    yield made, made.launch(7960)
    made.close()


def test_jobs_run_one_after_another_and_a_failure_does_not_end_the_worker(runner: JobRunner, tmp_path: Path) -> None:
    jobs = [runner.submit(make_job(tmp_path / name, name)) for name in ("a.jpg", "bad.jpg", "crash.jpg", "b.jpg")]
    for job in jobs:
        wait_until_finished(job)
    assert [job.state for job in jobs] == ["done", "failed", "failed", "done"]
    assert jobs[1].reason == "The photos show <different> places."
    assert jobs[1].remedy == "Take overlapping photos."
    assert "ZeroDivisionError" in jobs[2].reason
    assert list(jobs[0].events) == ["photos", "write"]


def test_a_running_job_and_a_waiting_one_can_be_stopped(runner: JobRunner, tmp_path: Path) -> None:
    running, waiting = (runner.submit(make_job(tmp_path / name, "slow.jpg")) for name in ("x", "y"))
    while "depth" not in running.events:
        running.wait(0.2)
    waiting.stop()
    running.stop()
    wait_until_finished(running)
    wait_until_finished(waiting)
    assert running.state == waiting.state == "stopped"
    assert waiting.events == {}
    assert not running.out.exists()


def test_closing_ends_the_worker(tmp_path: Path) -> None:
    runner = JobRunner(fake_start)
    job = runner.submit(make_job(tmp_path, "slow.jpg"))
    while not job.events:
        job.wait(0.2)
    runner.close()
    assert job.state == "stopped"
    assert not runner._thread.is_alive()


def test_dropped_photos_of_one_name_both_stay(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    photos = [write_photo(tmp_path / folder / "a.jpg") for folder in ("one", "two")]
    gather(photos, tmp_path / "all")
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["a.jpg", "a_2.jpg"]


def test_words_from_outside_are_escaped(tmp_path: Path) -> None:
    job = make_job(tmp_path, "a.jpg")
    job.result = make_result(tmp_path)
    job.settle("done")
    assert "&lt;b&gt;c.jpg&lt;/b&gt;" in draw_status(job)
    job.settle("failed", reason="<script>", remedy="a & b")
    assert "&lt;script&gt;" in draw_status(job)
    assert "a &amp; b" in draw_status(job)


def test_it_listens_on_this_machine_only_and_is_not_shared(site: tuple[Site, str]) -> None:
    made, url = site
    assert url.startswith("http://127.0.0.1:")
    assert made.blocks.share is False
    assert not made.blocks.share_url
    assert made.blocks.analytics_enabled is False


def test_a_program_drops_photos_and_takes_the_scene_away(site: tuple[Site, str], tmp_path: Path) -> None:
    from gradio_client import Client, handle_file

    made, url = site
    client = Client(url, verbose=False, analytics_enabled=False, download_files=str(tmp_path / "got"))
    photos = [handle_file(write_photo(tmp_path / name)) for name in ("a.jpg", "b.jpg")]
    status, viewer, preview, files = client.predict(photos, 640, 0, 0, api_name="/reconstruct")
    assert "20 Gaussians from 2 photos" in status
    assert made.viewer.url in viewer
    assert preview["visible"] is True
    taken = {Path(path).name: Path(path) for path in files["value"]}
    assert taken["scene.ply"].read_bytes() == b"ply"
    with zipfile.ZipFile(taken["scene.zip"]) as archive:
        assert sorted(archive.namelist()) == ["scene/preview.png", "scene/scene.ply"]
    with urllib.request.urlopen(made.viewer.url, timeout=10) as answer:
        assert answer.status == 200
    client.close()


@pytest.mark.parametrize(
    ("names", "holdout", "wanted"),
    [
        (["bad.jpg"], 0, ["The photos show &lt;different&gt; places.", "Take overlapping photos."]),
        (["a.jpg"], 1, ["Every photo would be held out."]),
        ([], 0, ["No photos were given."]),
    ],
)
def test_errors_come_in_words(site: tuple[Site, str], tmp_path: Path, names: list[str], holdout: int, wanted: list[str]) -> None:
    from gradio_client import Client, handle_file

    client = Client(site[1], verbose=False, analytics_enabled=False)
    photos = [handle_file(write_photo(tmp_path / name)) for name in names]
    status = client.predict(photos, 640, 0, holdout, api_name="/reconstruct")[0]
    assert all(part in status for part in wanted)
    assert "Traceback" not in status
    client.close()


@pytest.mark.browser
def test_a_person_sees_the_page(site: tuple[Site, str]) -> None:
    from browser import Browser

    with Browser(1200, 900) as tab:
        tab.open(site[1])
        tab.wait_for("document.body.innerText.includes('Reconstruct')")
        text = tab.evaluate("document.body.innerText")
        assert isinstance(text, str)
        assert all(word in text for word in ("Photos", "Options", "Stop", "Nothing leaves this machine"))
        assert tab.picture().std() > 5
    assert helpers.find_browser()
