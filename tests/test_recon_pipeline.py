"""The whole path on a small made scene with given cameras: determinism, held-out photos, outputs, refusals."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.run import build_tools
from recon.cameras.result import SfmResult
from recon.config import Holdout, PipelineConfig
from recon.errors import CannotReconstruct, UserError
from recon.fuse import FuseConfig, Fused
from recon.geometry import pixel_grid, rays_cam, transform
from recon.outputs import RESULT_NAMES, check_writable
from recon.pipeline import keep_points_of, run_pipeline
from recon.posed import PosedViews
from recon.progress import Cancelled, Progress
from recon.quality.score import UNREGISTERED_PSNR, psnr, score_views, ssim, summarize
from recon.records import Cameras, Gaussians
from recon.run_records import Ledger

WIDTH, HEIGHT, VIEWS = 128, 96, 6


def write_capture(folder: Path, *, spoil: set[int] = frozenset()) -> Path:
    """Photos of a textured card before a textured wall, and their cameras.json; spoiled photos hold noise instead."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    K = torch.tensor([[110.0, 0, WIDTH / 2], [0, 110.0, HEIGHT / 2], [0, 0, 1]])
    rng = np.random.default_rng(3)
    texture = torch.from_numpy(rng.random((64, 64, 3))).float()
    frames = []
    for i in range(VIEWS):
        T = torch.eye(4)
        T[0, 3] = -0.75 + 0.3 * i
        T[1, 3] = 0.1 * (i % 2)
        rays = rays_cam(pixel_grid(HEIGHT, WIDTH), K)
        card = transform(T, rays * 3.0)
        z = torch.where((card[..., 0].abs() < 0.8) & (card[..., 1].abs() < 0.7), 3.0, 5.0)
        p = transform(T, rays * z[..., None])
        u = torch.stack([p[..., 0] * 6 + z * 7, p[..., 1] * 6], dim=-1) % 63
        low, frac = u.floor().long(), u - u.floor()
        image = torch.zeros(HEIGHT, WIDTH, 3)
        for dx in (0, 1):
            for dy in (0, 1):
                weight = (frac[..., 0] if dx else 1 - frac[..., 0]) * (frac[..., 1] if dy else 1 - frac[..., 1])
                image += weight[..., None] * texture[low[..., 1] + dy, low[..., 0] + dx]
        pixels = (image * 255).round().byte().numpy()
        if i in spoil:
            pixels = rng.integers(0, 255, pixels.shape, dtype=np.uint8)
        name = f"{i}.png"
        Image.fromarray(pixels).save(photos / name)
        frames.append(
            {
                "name": name, "width": WIDTH, "height": HEIGHT, "K": K.tolist(), "distortion": [0, 0, 0, 0],
                "T_world_cam": T.tolist(), "registered": True, "holdout": False,
            }
        )  # fmt: skip
    (folder / "cameras.json").write_text(json.dumps({"format": 1, "frames": frames}))
    return photos


def config_for(folder: Path, **changes) -> PipelineConfig:
    base = PipelineConfig(
        cameras=str(folder / "cameras.json"), model="plane-sweep", fuse=FuseConfig(max_gaussians=3000, shell=200, recolor_steps=2),
        video=False, device="cpu",
    )  # fmt: skip
    return replace(base, **changes)


def test_held_out_pixels_change_nothing_but_the_score(tmp_path):
    holdout = Holdout(every=3, offset=1)
    results = []
    for name, spoil in (("clean", set()), ("spoiled", {1, 4})):
        photos = write_capture(tmp_path / name, spoil=spoil)
        results.append(run_pipeline(photos, None, config_for(tmp_path / name, holdout=holdout), build_tools(), Progress()))
    clean, spoiled = (r.scene.gaussians for r in results)
    for field in ("means", "quats", "scales", "opacities", "sh"):
        assert torch.equal(getattr(clean, field), getattr(spoiled, field)), field
    good, bad = (r.report["quality"] for r in results)
    assert good["n_scored"] == bad["n_scored"] == 2
    assert [v["name"] for v in good["per_view"]] == ["1.png", "4.png"]
    assert good["psnr_mean"] > bad["psnr_mean"] + 3


def test_points_that_only_held_out_photos_saw_are_dropped():
    visibility = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 1], [1, 1, 1, 0], [0, 0, 1, 1]], dtype=torch.bool)
    cameras = Cameras(T_world_cam=torch.eye(4).repeat(4, 1, 1), K=torch.eye(3).repeat(4, 1, 1), width=4, height=4)
    solved = SfmResult(
        cameras=cameras,
        points_world=torch.arange(12.0).reshape(4, 3),
        points_rgb=torch.zeros(4, 3, dtype=torch.uint8),
        visibility=visibility,
        reprojection_error_px=0.5,
        per_view_points=visibility.sum(1),
        attempts=[],
    )
    kept = keep_points_of(solved, [0, 2])
    assert kept.points_world[:, 0].tolist() == [0.0, 3.0]
    assert not kept.visibility[[1, 3]].any()


def test_whole_folder_is_written_and_replaced(tmp_path):
    photos = write_capture(tmp_path)
    out = tmp_path / "out"
    for _ in range(2):
        result = run_pipeline(photos, out, config_for(tmp_path), build_tools(), Progress())
    assert result.out == out
    assert {p.name for p in out.iterdir()} == RESULT_NAMES - {"orbit.mp4"}
    report = json.loads((out / "report.json").read_text())
    assert report["counts"]["gaussians"] == len(result.scene.gaussians)
    assert report["quality"] == {"n_scored": 0}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cameras.json", "out", "photos"]


def test_scene_looks_like_its_photos(tmp_path):
    photos = write_capture(tmp_path)
    result = run_pipeline(photos, None, config_for(tmp_path, holdout=Holdout(every=5, offset=2)), build_tools(), Progress())
    assert result.report["quality"]["psnr_mean"] > 17
    assert result.report["quality"]["coverage"] > 0.95


@pytest.mark.parametrize("stage", ["photos", "cameras", "depth", "gaussians", "write"])
def test_cancelling_leaves_nothing_behind(tmp_path, stage):
    photos = write_capture(tmp_path)
    progress = Progress(lambda event: progress.cancel() if event.stage == stage else None)
    with pytest.raises(Cancelled):
        run_pipeline(photos, tmp_path / "out", config_for(tmp_path), build_tools(), progress)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cameras.json", "photos"]


def test_one_photo_is_refused_in_words(tmp_path):
    photos = write_capture(tmp_path)
    with pytest.raises(CannotReconstruct, match="one readable photo"):
        run_pipeline([photos / "0.png"], None, config_for(tmp_path), build_tools(), Progress())


def test_output_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(UserError, match=r"letters\.txt"):
        check_writable(tmp_path)
    with pytest.raises(UserError, match="file"):
        check_writable(tmp_path / "letters.txt")


def test_scores_match_their_definitions():
    a = torch.full((16, 16, 3), 0.5)
    valid = torch.ones(16, 16, dtype=torch.bool)
    assert psnr(a, a + 0.1, valid) == pytest.approx(20.0, abs=1e-4)
    assert psnr(a, a, valid) == math.inf
    assert ssim(a, a, valid) == pytest.approx(1.0, abs=1e-6)
    half = valid.clone()
    half[:, :8] = False
    b = a.clone()
    b[:, :8] = 0
    assert psnr(a, b, half) == math.inf


def test_unregistered_held_out_photos_count_as_ten_db():
    empty = PosedViews(
        names=(), read=lambda i: (_ for _ in ()).throw(IndexError(i)),
        cameras=Cameras(T_world_cam=torch.zeros(0, 4, 4), K=torch.zeros(0, 3, 3), width=(), height=()),
    )  # fmt: skip
    one = Gaussians(
        means=torch.zeros(1, 3),
        quats=torch.tensor([[1.0, 0, 0, 0]]),
        scales=torch.ones(1, 3),
        opacities=torch.ones(1) / 2,
        sh=torch.zeros(1, 1, 3),
    )
    scores = score_views(Fused(gaussians=one, shell_count=0), empty, ["a.jpg"], build_tools().load_rasterizer("cpu"))
    assert summarize(scores)["psnr_mean"] == UNREGISTERED_PSNR
    assert summarize(scores)["n_unregistered"] == 1


def test_a_stage_within_another_is_timed_once() -> None:
    ledger = Ledger()
    started = time.perf_counter()
    with ledger.stage("polish"):
        with ledger.stage("gaussians"):
            time.sleep(0.2)
        time.sleep(0.1)
    spent = time.perf_counter() - started
    assert 0.19 < ledger.seconds["gaussians"] <= spent - 0.09
    assert sum(ledger.seconds.values()) <= spent


def test_a_photo_without_a_camera_among_others_with_is_named_and_left_out(tmp_path):
    photos = write_capture(tmp_path)
    given = tmp_path / "cameras.json"
    record = json.loads(given.read_text())
    record["frames"] = [frame for frame in record["frames"] if "4.png" not in frame["name"]]
    assert len(record["frames"]) == VIEWS - 1
    given.write_text(json.dumps(record))
    result = run_pipeline(photos, None, config_for(tmp_path), build_tools(), Progress())
    assert len(result.scene.gaussians) > 500
    assert "4.png" in json.dumps(result.report["cameras"]) + json.dumps(result.report["warnings"])
    assert result.scene.cameras.names is None or "4.png" not in result.scene.cameras.names
