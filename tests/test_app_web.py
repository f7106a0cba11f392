"""The page's pieces: words, thumbnails, stages, the plot of cameras, the table to take home; and the same for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.server.exports import EXPORTS
from app.server.records import Estimate, Inspection, JobView, PhotoLook, StageView
from app.server.refusals import Refused
from app.server.settings import PRESETS, RunSettings
from app.web.draw_job import draw_head, draw_outcome, draw_photos, draw_stages, expected_stages, plot_data
from app.web.gallery import draw_gallery
from app.web.new_scene import FIELDS, as_preset, read_settings
from app.web.take_home import FIRST, GROUPS, draw_take_home
from app.web.tray import Tray, draw_tray, key_of
from app.web.words import duration, estimate_words, plural, size, when

import helpers
from fake_jobs import FakeJobs, ring_of_cameras
from page_server import served_page

HOSTILE = '"><img src=x onerror=alert(1)>.jpg'


def make_view(folder: Path, **more) -> JobView:
    common = {
        "id": "abc", "name": "<i>My</i> scene", "state": "running", "position": 0, "created_s": 0.0, "started_s": 1.0,
        "finished_s": None, "settings": {"preset": "balanced"}, "photos": ("a.jpg", "b.jpg", HOSTILE), "folder": folder,
    }  # fmt: skip
    return JobView(**{**common, **more})


def stage(fraction: float, message: str = "", seconds: float = 10.0) -> StageView:
    return StageView(fraction=fraction, message=message, seconds=seconds)


def address(file: Path) -> str:
    return f"/files/{file.name}"


@pytest.mark.parametrize(("seconds", "wanted"), [(0.2, "1 s"), (89, "89 s"), (119, "2 min"), (3600, "60 min"), (7200, "2.0 h")])
def test_durations_are_said_as_a_person_says_them(seconds: float, wanted: str) -> None:
    assert duration(seconds) == wanted


def test_sizes_counts_and_dates() -> None:
    assert [size(n) for n in (12, 1500, 123_456, 2_500_000, 3e9)] == ["12 B", "1.5 kB", "123 kB", "2.5 MB", "3.0 GB"]
    assert plural(1, "photo") == "1 photo"
    assert plural(1200, "photo") == "1,200 photos"
    now = time.time()
    assert when(now, now).startswith("today ")
    assert "2001" in when(time.mktime((2001, 5, 3, 12, 0, 0, 0, 0, -1)), now)


def test_an_estimate_says_what_is_not_known() -> None:
    estimate = Estimate(seconds={"photos": 2.0, "depth": None}, memory_bytes=1_500_000_000)
    assert estimate_words(estimate) == "about 2 s and estimating depth, of which nothing is known yet, 1.5 GB of memory"
    assert estimate_words(None) == ""


def make_look(name: str, path: str, **more) -> PhotoLook:
    return PhotoLook(**{"name": name, "path": Path(path), "width": 4000, "height": 3000, **more})


def test_photos_come_and_go_and_turn() -> None:
    a, b = make_look("a.jpg", "/in/a.jpg"), make_look("b.jpg", "/in/b.jpg")
    broken = [make_look(name, "/up/trip.zip", skipped="broken") for name in ("x.jpg", "y.jpg")]
    tray = Tray().looked(Inspection(photos=(a, b, *broken)))
    assert tray.files == (a.path, b.path), "pictures of a zip are files of their own, what is lost is not given to a run"
    tray = tray.turned(key_of(a), 1).turned(key_of(a), 1).turned(key_of(b), -1)
    assert tray.turns == {a.path: 2, b.path: 3}
    assert tray.turned(key_of(b), 1).turns == {a.path: 2}, "four quarters are none"
    assert tray.turned("0" * 16, 1) == tray
    again = tray.looked(Inspection(photos=(b, *broken)))
    assert (again.files, again.turns) == ((b.path,), {b.path: 3})
    assert len(again.lost) == 2, "what was lost is told once"
    assert [look.name for look in again.without(key_of(broken[0])).lost] == ["y.jpg"]
    assert again.without(key_of(b)).files == ()


def test_thumbnails_say_what_was_understood_and_escape_names() -> None:
    good = make_look(HOSTILE, "/up/x.jpg", camera="Pear Pear <7> 4.250", words=("blurred", "a copy"), same_as="first.jpg",
                     thumbnail=Path("/t/x.jpg"))  # fmt: skip
    lost = make_look("b.jpg", "/up/b.jpg", skipped="it ends in the middle")
    found = Inspection(photos=(good, lost), advice=("Walk <more>.",), reason="Too few.", remedy="Take more.")
    html = draw_tray(Tray().looked(found).turned(key_of(good), 1), address)
    assert "<img src=x" not in html
    assert "3000 × 4000" in html, "a turned photo has its sides swapped"
    assert 'class="turn1"' in html
    assert "<br>Pear &lt;7&gt; 4.25 mm" in html
    assert "blurred" in html
    assert "copy of first.jpg" in html
    assert "Cannot be used: it ends in the middle" in html
    assert "Walk &lt;more&gt;." in html
    assert "Too few." in html
    assert "Take more." in html
    assert "<b>1 photo</b>, 1 cannot be used, 1 doubtful" in html
    assert html.count('data-do="remove"') == 2
    assert html.count('data-do="left"') == 1
    assert "/up/" not in html, "where an upload lies is nobody's business"


def test_choices_equal_to_a_preset_are_the_preset() -> None:
    usual = {"preset": "best", "cameras": "auto", "model": "auto", "polish_sh": 1, "holdout": 0, "max_gaussians": 0,
             "shared_camera": False, "surfels": False, "scale_from": "  ", "intrinsics": ""} | PRESETS["best"][1]  # fmt: skip
    settings = read_settings([usual[name] for name in FIELDS])
    assert as_preset(settings) == RunSettings(preset="best")
    other = read_settings([(usual | {"long_side": 512.0, "max_gaussians": 5000.0})[name] for name in FIELDS])
    assert as_preset(other) == RunSettings(preset="best", long_side=512, max_gaussians=5000)
    with pytest.raises(Refused, match="scale_from"):
        read_settings([(usual | {"scale_from": "far"})[name] for name in FIELDS])


def test_stages_show_what_is_done_what_runs_and_what_comes(tmp_path: Path) -> None:
    view = make_view(tmp_path, stages={"photos": stage(1), "cameras": stage(0.25, "matching <x>")}, advice=("Slow & steady.",))
    html = draw_stages(view)
    assert expected_stages(view) == ["photos", "cameras", "depth", "gaussians", "polish", "write"]
    assert html.count('class="over"') == 1
    assert html.count('class="now"') == 1
    assert html.count('class="to-come"') == 4
    assert "matching &lt;x&gt;" in html
    assert "25%, 30 s left" in html
    assert "Slow &amp; steady." in html
    fast = make_view(tmp_path, settings={"preset": "fast", "holdout": 8})
    assert "polish" not in expected_stages(fast)
    assert "score" in expected_stages(fast)
    kept = draw_stages(make_view(tmp_path, stages={"photos": stage(1), "polish": stage(0.5)}))
    assert kept.count("nothing to do") == 3, "stages that were found in the cache, or had no time, count as done"


def test_a_waiting_job_says_its_place(tmp_path: Path) -> None:
    assert "Number 3 in the queue" in draw_stages(make_view(tmp_path, state="waiting", position=3))
    assert "2 other reconstructions will come first" in draw_stages(make_view(tmp_path, state="waiting", position=3))
    assert "It is next" in draw_stages(make_view(tmp_path, state="waiting", position=1))
    assert "Waiting, number 3" in draw_head(make_view(tmp_path, state="waiting", position=3))


def test_trouble_comes_in_words_with_the_photos_marked(tmp_path: Path) -> None:
    (tmp_path / "thumbs").mkdir()
    (tmp_path / "thumbs" / "b.jpg.jpg").write_bytes(b"x")
    view = make_view(tmp_path, state="failed", reason="<Only> 1 of 3.", remedy="Overlap & move.", offending=("b.jpg",),
                     photo_words={"b.jpg": ("could not be placed",)},
                     stages={"photos": stage(1), "cameras": stage(0.5)})  # fmt: skip
    assert "&lt;Only&gt; 1 of 3." in draw_outcome(view, address)
    assert "Overlap &amp; move." in draw_outcome(view, address)
    assert 'class="broke"' in draw_stages(view)
    strip = draw_photos(view, address)
    assert "Photos: 1 of 3 with trouble" in strip
    assert strip.index("b.jpg") < strip.index("a.jpg"), "marked photos come first"
    assert 'class="photo lost"' in strip
    assert "could not be placed" in strip
    assert 'src="/files/b.jpg.jpg"' in strip
    assert "<img src=x" not in strip
    assert "&lt;i&gt;My&lt;/i&gt;" in draw_head(view)
    assert "<i>My</i>" not in draw_gallery([view], lambda _: address)


def test_the_plot_stands_upright_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "cameras.json"
    given = ring_of_cameras(8)
    given["frames"][0]["registered"] = False
    given["points"].append([float("nan"), 0, 0, 1, 2, 3])
    path.write_text(json.dumps(given))
    made = json.loads(plot_data(path))
    assert len(made["cameras"]) == 7
    assert len(made["points"]) == 1600
    lowest = min(camera[0][1] for camera in made["cameras"])
    assert max(point[1] for point in made["points"]) < lowest, "the world's y points down, the plot's up: what is below stays below"
    assert max(abs(value) for camera in made["cameras"] for value in camera[0]) < 1.5
    centre, *corners = made["cameras"][0]
    toward = [sum(c[i] for c in corners) / 4 - centre[i] for i in range(3)]
    assert sum(toward[i] * -centre[i] for i in range(3)) > 0, "cameras look at the middle"
    path.write_text(json.dumps({"frames": [], "points": []}))
    assert plot_data(path) == ""


def test_everything_can_be_taken_home_with_its_size(tmp_path: Path) -> None:
    scene, exports = tmp_path / "scene", tmp_path / "exports"
    scene.mkdir()
    exports.mkdir()
    (scene / "scene.ply").write_bytes(b"x" * 2500)
    (exports / "scene.spz").write_bytes(b"x" * 700)
    view = make_view(tmp_path, state="done", scene=scene)
    html = draw_take_home(view, address, {"sog"}, {"mesh-stl": Refused("No <surface>.", "More photos.")})
    assert "2.5 kB" in html
    assert 'href="/files/scene.ply"' in html
    assert "700 B" in html
    assert html.count("being made") == 1
    assert "No &lt;surface&gt;. More photos." in html
    assert "orbit.mp4" not in html, "a run without a video offers none"
    assert draw_take_home(make_view(tmp_path), address, (), {}) == ""
    for name, kind in EXPORTS.items():
        if not kind.from_run:
            assert kind.opens in html.replace("&#x27;", "'"), name
    assert {*FIRST} <= {name for _, names in GROUPS for name in names} <= set(EXPORTS)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[FakeJobs, str]]:
    with served_page(tmp_path) as made:
        yield made


def test_a_program_asks_for_a_scene_and_takes_it_home(served: tuple[FakeJobs, str], tmp_path: Path) -> None:
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    jobs, url = served
    photos = [handle_file(str(path)) for path in helpers.write_noise_photos(tmp_path / "in", 2)]
    client = Client(url, verbose=False, analytics_enabled=False)
    job = client.predict(photos, {"preset": "fast"}, "From a program", api_name="/reconstruct")
    assert (job["state"], job["position"], job["name"]) == ("waiting", 1, "From a program")
    assert jobs.submitted[0][0] == RunSettings(preset="fast")
    jobs.reach(job["id"], "depth", 0.5)
    assert client.predict(job["id"], api_name="/status")["stages"]["depth"]["fraction"] == 0.5
    jobs.finish(job["id"])
    done = client.predict(job["id"], api_name="/status")
    assert done["state"] == "done"
    assert done["files"]["scene.ply"] == f"/jobs/{job['id']}/files/scene/scene.ply"
    assert str(tmp_path) not in json.dumps(done), "paths of the server stay there"
    taken = client.predict(job["id"], "spz", api_name="/export")
    assert (taken["file"], taken["bytes"]) == ("scene.spz", 1234)
    stranger = Client(url, verbose=False, analytics_enabled=False, headers={"x-owner": "somebody else"})
    for endpoint, more in (("/status", ()), ("/export", ("spz",)), ("/delete", ())):
        with pytest.raises(AppError, match="There is no such reconstruction"):
            stranger.predict(job["id"], *more, api_name=endpoint)
    with pytest.raises(AppError, match="There is no setting 'colour'"):
        client.predict(photos, {"colour": 1}, "", api_name="/reconstruct")
    assert client.predict(job["id"], api_name="/delete") == {"deleted": job["id"]}
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {"/reconstruct", "/status", "/export", "/delete"}
    client.close()
    stranger.close()
