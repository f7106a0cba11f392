"""The camera network learns photos by heart, and its way into a run: sizes, what is known, many photos, the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from camera_lesson import SAME, Lesson, learned_by_heart, perfect, plain_truth, random_cameras, small_network, written  # noqa: F401
from test_recon_pipeline import write_capture

from app.cli import main
from app.identity import weights_digests
from models import learned_cameras
from models.camera_network import largest_distance
from models.learned_cameras import LearnedCameras, joined, known_of, network_size
from models.matcher import MatcherNetwork
from models.registry import load_camera_predictor
from models.training.camera_losses import camera_errors
from recon.cameras.camera_files import load_cameras, write_cameras_json
from recon.cameras.scoring import score_cameras
from recon.config import PipelineConfig
from recon.errors import UserError
from recon.photos import open_photos
from recon.progress import Progress
from recon.records import Cameras


def test_it_learns_photos_by_heart(lesson: Lesson):
    assert lesson.after["rotation_deg"] < 1.0 < lesson.before["rotation_deg"]
    assert lesson.after["direction_deg"] < 15 < lesson.before["direction_deg"]
    assert lesson.after["auc30"] > 0.6 > lesson.before["auc30"]
    assert lesson.after["focal_error"] < 0.05 < lesson.before["focal_error"]


def test_sizes_stretch_photos_little_and_keep_their_shape():
    assert network_size(4000, 3000, 256) == (192, 256)
    assert network_size(3000, 4000, 256) == (256, 192)
    assert network_size(6000, 4000, 256) == (160, 240)
    assert network_size(1920, 1080, 256) == (144, 256)
    assert network_size(500, 500, 256) == (256, 256)
    assert network_size(10000, 200, 256) == (32, 256)


def test_photos_of_two_shapes_get_cameras_at_their_own_size(tmp_path: Path):
    views = open_photos(write_capture(tmp_path), long_side=128).views
    upright = replace(
        views[1],
        original_width=96,
        original_height=128,
        decode=lambda width, height: np.full((height, width, 3), 90, np.uint8),
        focal_px=100.0,
    )
    views = type(views)((views[0], upright, *views[2:]))
    predictor = LearnedCameras(small_network(), side=64)
    found = predictor.predict_views(views, Progress())
    assert found.cameras.height == (48, 64, 48, 48, 48, 48)
    assert [tuple(one.shape) for one in found.depth] == list(zip(found.cameras.height, found.cameras.width, strict=True))
    assert all(0 <= float(one.min()) <= float(one.max()) <= 1 for one in found.confidence)
    assert not found.cameras.T_world_cam.is_inference()
    order = [4, 1, 0, 5, 2, 3]
    mixed = predictor.predict_views(views.select(order), Progress())
    torch.testing.assert_close(mixed.cameras.T_world_cam, found.cameras.T_world_cam[order], atol=SAME, rtol=0)
    torch.testing.assert_close(mixed.depth[0], found.depth[4], atol=SAME, rtol=1e-3)
    told = known_of(views, list(zip(found.cameras.height, found.cameras.width, strict=True)), None)
    assert told.has_K[0].tolist() == [False, True, False, False, False, False]
    assert told.K[0, 1, 0].tolist() == [50.0, 0.0, 24.0]


def test_known_cameras_give_their_world_to_the_others(tmp_path: Path):
    views = open_photos(write_capture(tmp_path), long_side=128).views
    T_world_cam = 10 * random_cameras(1, len(views))[0]
    T_world_cam[:, :3, :3] /= 10
    T_world_cam[:, 3, 3] = 1
    registered = torch.tensor([True, True, True, False, False, False])
    K = torch.eye(3).repeat(len(views), 1, 1)
    known = Cameras(T_world_cam=T_world_cam, K=K, width=128, height=96, registered=registered)
    found = LearnedCameras(small_network(), side=64).predict_views(views, Progress(), known).cameras
    torch.testing.assert_close(found.centers_world[:3].mean(0), known.centers_world[:3].mean(0), atol=1e-3, rtol=1e-3)
    spread = [float((c - c.mean(0)).norm()) for c in (found.centers_world[:3], known.centers_world[:3])]
    assert spread[0] == pytest.approx(spread[1], rel=1e-3)


def test_many_photos_are_joined_by_those_that_groups_share(monkeypatch: pytest.MonkeyPatch):
    T_world_cam = random_cameras(1, 8)[0].double()
    parts, groups = [], [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7]]
    for group, scale in zip(groups, (1.0, 3.0), strict=True):
        T = random_cameras(1, 1, seed=int(scale))[0].double() @ T_world_cam[group]
        T[:, :3, 3] *= scale
        maps = tuple(torch.full((2, 2), scale * (view + 1)) for view in group)
        parts.append(learned_cameras.Told(T.float(), torch.eye(3).repeat(5, 1, 1), maps, maps))
    whole = joined(parts, groups)
    truth = plain_truth(1, 8)
    unit = float(largest_distance(T_world_cam[None, :, :3, 3])[0])
    wanted = replace(truth, T_world_cam=T_world_cam[None].float())
    said = perfect(wanted)
    T = whole.T_world_cam.clone()
    T[:, :3, 3] /= unit
    errors = camera_errors(replace(said, T_world_cam=T[None]), replace(wanted, depth=(0 * truth.depth[0] + 0.01,)))
    assert float(errors.rotation.max()) < 1e-3
    assert float(errors.place.max()) < 1e-3
    assert [float(one[0, 0]) for one in whole.depth] == pytest.approx(list(range(1, 9)), rel=1e-3)


def test_a_run_with_the_camera_network(lesson: Lesson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its cameras start bundle adjustment, and the better ones of both are taken."""
    monkeypatch.setattr("models.registry.LearnedCameras", partial(LearnedCameras, side=64))
    out = ["--out", str(tmp_path / "out"), "--model", "plane-sweep", "--no-video", "--device", "cpu", "--long-side", "96"]
    given = ["--cameras", "network", "--camera-network", str(written(tmp_path, lesson.network)), "--max-gaussians", "500"]
    assert main(["run", str(lesson.photos), *out, *given]) == 0
    told = json.loads((tmp_path / "out" / "report.json").read_text())["choices"]["cameras"]
    assert told["network"] == "camera-network"
    attempts = {one["tried"]: one for one in told["attempts"]}
    adjusted = attempts["camera-network, bundle adjustment"]
    assert adjusted["explained_matches"] > attempts["camera-network"]["explained_matches"]
    assert adjusted["chosen"]
    views = open_photos(lesson.photos, long_side=128).views
    score = score_cameras(load_cameras(tmp_path / "out" / "cameras.json", views).cameras, lesson.truth)
    assert score.placed == len(views)
    assert score.auc30 > 0.8


def test_the_camera_network_is_scored_alone_and_adjusted(
    lesson: Lesson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("models.registry.LearnedCameras", partial(LearnedCameras, side=64))
    views = open_photos(lesson.photos, long_side=128).views
    write_cameras_json(
        tmp_path / "truth.json", replace(lesson.truth, distortion=torch.zeros(5, 4), names=tuple(views.names)), views
    )
    weights = written(tmp_path, lesson.network)
    command = ["eval", "cameras", str(lesson.photos), "--reference", str(tmp_path / "truth.json"), "--camera-network", str(weights)]
    assert main([*command, "--cameras", "network", "--no-adjust-cameras", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (row,) = told["scores"]
    assert told["camera_network"]["file"] == str(weights)
    assert [one["tried"] for one in row["attempts"]] == ["camera-network"]
    assert row["auc30"] > 0.8
    assert row["focal_error"] < 0.05
    assert main([*command, "--cameras", "sfm"]) != 0
    assert "--camera-network has no part in --cameras sfm" in capsys.readouterr().err


def test_a_run_refuses_a_camera_network_it_cannot_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nothing")
    photos = str(write_capture(tmp_path))
    run = ["run", photos, "--out", str(tmp_path / "out")]
    assert main([*run, "--cameras", "network", "--camera-network", str(bad)]) != 0
    assert "Cannot read weights" in capsys.readouterr().err
    assert main([*run, "--camera-network", str(tmp_path / "none.safetensors")]) != 0
    assert "Cannot read weights" in capsys.readouterr().err
    assert main([*run, "--cameras", "sfm", "--camera-network", str(bad)]) != 0
    assert "--camera-network has no part in --cameras sfm" in capsys.readouterr().err
    assert main([*run, "--cameras", "network"]) != 0
    assert "recon train cameras" in capsys.readouterr().err
    other = written(tmp_path, MatcherNetwork())
    with pytest.raises(UserError, match="does not fit"):
        load_camera_predictor("network", weights=other)
    with pytest.raises(UserError, match="do not make 'da3-small'"):
        load_camera_predictor("da3-small", weights=other)
    assert not (tmp_path / "out").exists()
    assert any(one.startswith("camera network ") for one in weights_digests(PipelineConfig(camera_network=other), "cpu"))


def test_the_command_refuses_what_the_camera_network_does_not_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", "cameras", "--out", str(tmp_path), "--captures", "3"]) != 0
    assert "belongs to 'mini'" in capsys.readouterr().err
