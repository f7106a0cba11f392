"""The process of a reconstruction: what it writes before the end, what it tells, and that it does not outlive its server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from app.server import run_child
from app.server.processes import child_environment
from app.server.run_child import SERVER_GONE, Early, facts_of
from recon.cameras.result import SfmResult
from recon.progress import Progress
from recon.records import Cameras, Gaussians, Scene, View, Views


def make_views() -> Views:
    def closed(width: int, height: int):
        raise AssertionError("no pixels are needed")

    size = {"original_width": 64, "original_height": 48, "width": 64, "height": 48}
    return Views(tuple(View(path=Path(name), name=name, decode=closed, **size) for name in ("a.jpg", "b.jpg")))


def make_cameras() -> Cameras:
    K = torch.tensor([[50.0, 0, 32], [0, 50.0, 24], [0, 0, 1]]).double().repeat(2, 1, 1)
    return Cameras(
        T_world_cam=torch.eye(4).double().repeat(2, 1, 1), K=K, width=64, height=48, distortion=torch.zeros(2, 4).double()
    )


def make_solved(points: int) -> SfmResult:
    return SfmResult(
        cameras=make_cameras(),
        points_world=torch.rand(points, 3).double(),
        points_rgb=torch.full((points, 3), 7, dtype=torch.uint8),
        visibility=torch.ones(2, points, dtype=torch.bool),
        reprojection_error_px=0.5,
        per_view_points=torch.tensor([points, points]),
    )


def test_cameras_and_a_first_scene_can_be_read_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recon.ply import read_ply

    lowered: list[int] = []
    monkeypatch.setattr(run_child, "let_others_go_first", lowered.append)
    told: list[dict] = []
    progress = Progress(None, Early(tmp_path, lambda **news: told.append(news)).take)
    progress.offer("cameras", make_solved(9001), make_views())
    found = json.loads((tmp_path / "early" / "cameras.json").read_text())
    assert [frame["name"] for frame in found["frames"]] == ["a.jpg", "b.jpg"]
    assert 3000 < len(found["points"]) <= 4000
    assert found["points"][0][3:] == [7, 7, 7]
    gaussians = Gaussians(
        means=torch.rand(5, 3),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(5, 1),
        scales=torch.full((5, 3), 0.1),
        opacities=torch.full((5,), 0.5),
        sh=torch.rand(5, 1, 3),
    )
    progress.offer("scene", Scene(gaussians=gaussians, cameras=make_cameras()))
    assert torch.allclose(read_ply(tmp_path / "early" / "scene.ply").means, gaussians.means, atol=1e-6)
    progress.offer("look", Scene(gaussians=gaussians, cameras=make_cameras()))
    assert told == [{"early": "cameras"}, {"early": "scene"}, {"early": "look"}]
    assert sorted(path.name for path in (tmp_path / "early").iterdir()) == ["cameras.json", "look.ply", "scene.ply"]
    assert lowered == 2 * [run_child.AFTER_OTHERS], "once there is something to look at"
    (tmp_path / "file").write_text("no folder")
    silent: list[dict] = []
    Early(tmp_path / "file", lambda **news: silent.append(news)).take("scene", Scene(gaussians=gaussians, cameras=make_cameras()))
    assert silent == [], "the run goes on without it"
    Progress().offer("scene", None)  # nobody wants it


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_all_threads_go_after_others() -> None:
    code = """if True:
        import os, threading
        from pathlib import Path
        from app.server.run_child import let_others_go_first
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        let_others_go_first(7)
        print({os.getpriority(os.PRIO_PROCESS, int(thread.name)) for thread in Path("/proc/self/task").iterdir()})"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=child_environment(), check=True)
    assert done.stdout.strip() == "{7}"


def test_photos_to_blame_are_named(tmp_path: Path) -> None:
    photos = [{"name": "a.jpg", "words": ["blurred"]}, {"name": "b.jpg", "words": []}, {"name": "c.jpg", "words": []}]
    warnings = ["1 of 3 photos could not be placed: c.jpg."]
    facts = facts_of({"photos": {"check": {"photos": photos, "advice": ["Hold still."]}}, "warnings": warnings})
    assert facts["photo_words"] == {"a.jpg": ["blurred"], "c.jpg": ["could not be placed"]}
    assert facts["offending"] == ["a.jpg", "c.jpg"]
    assert facts["advice"] == [*warnings, "Hold still."]


def test_it_says_in_words_what_photos_do_not_allow_and_ends_with_its_server(tmp_path: Path) -> None:
    for job in ("bad", "alone"):
        (tmp_path / job / "photos").mkdir(parents=True)
        (tmp_path / job / "job.json").write_text('{"settings": {"preset": "fast", "cameras": "sfm"}, "cores": 1}')
    words = [sys.executable, "-m", "app.server.run_child"]
    with subprocess.Popen(
        [*words, str(tmp_path / "bad")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=child_environment()
    ) as child:
        assert child.stdout is not None
        last = [json.loads(line) for line in child.stdout][-1]
    assert (last["end"], last["hopeless"]) == ("failed", True)
    assert "holds no files" in last["reason"]
    gone = subprocess.run(
        [*words, str(tmp_path / "alone")], stdin=subprocess.DEVNULL, capture_output=True, env=child_environment(), check=False
    )
    assert gone.returncode == SERVER_GONE
    assert b'"end"' not in gone.stdout
