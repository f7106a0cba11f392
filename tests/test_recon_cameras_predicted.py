"""Cameras and Gaussians from a network: taken over right, at the photos' own size, and through the whole path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_recon_pipeline import HEIGHT, VIEWS, WIDTH, config_for, write_capture

from app.run import build_tools
from recon.cameras import stage
from recon.cameras.predicted import cameras_by_network
from recon.cameras.result import SfmResult
from recon.config import Holdout
from recon.errors import UserError
from recon.fuse import FuseConfig
from recon.geometry import pixel_grid, rays_cam, rgb_to_sh0, transform
from recon.pipeline import Tools, run_pipeline
from recon.progress import Progress
from recon.records import Cameras, Gaussians, Prediction, View, Views

SCALE = 0.4
"""The network's unit over that of the scene."""
SHRINK = 2
"""Photo pixels per pixel of the network."""


def true_answer(views: Views, progress: Progress) -> Prediction:
    """Say what `write_capture` drew, in another unit and at half the size."""
    progress.update("cameras", 0.5)
    width, height = WIDTH // SHRINK, HEIGHT // SHRINK
    K = torch.tensor([[110.0 / SHRINK, 0, width / 2], [0, 110.0 / SHRINK, height / 2], [0, 0, 1]])
    T_world_cam = torch.eye(4).repeat(len(views), 1, 1)
    depth = []
    for view in range(len(views)):
        T_world_cam[view, :2, 3] = torch.tensor([-0.75 + 0.3 * view, 0.1 * (view % 2)])
        card = transform(T_world_cam[view], 3.0 * rays_cam(pixel_grid(height, width), K))
        on_card = (card[..., 0].abs() < 0.8) & (card[..., 1].abs() < 0.7)
        depth.append(SCALE * torch.where(on_card, 3.0, 5.0))
    T_world_cam[:, :3, 3] *= SCALE
    cameras = Cameras(T_world_cam=T_world_cam, K=K.repeat(len(views), 1, 1), width=width, height=height)
    return Prediction(cameras=cameras, depth=tuple(depth), confidence=tuple(torch.full_like(d, 0.9) for d in depth))


def plain_views() -> Views:
    """Make grey photos of the size of the capture; two are held out."""
    size = {"original_width": WIDTH, "original_height": HEIGHT, "width": WIDTH // 2, "height": HEIGHT // 2}

    def view(k: int) -> View:
        def decode(width: int, height: int) -> np.ndarray:
            return np.full((height, width, 3), 20 * k, dtype=np.uint8)

        return View(path=Path(f"{k}.png"), name=f"{k}.png", decode=decode, holdout=k % 3 == 1, **size)

    return Views(tuple(view(k) for k in range(VIEWS)))


def tools_with(answer: Callable, **others: Callable) -> Tools:
    network = SimpleNamespace(name="oracle", predict_views=answer, makes_gaussians=True)
    return replace(build_tools(), load_camera_predictor=lambda name, device, weights: network, camera_models=("oracle",), **others)


def test_predicted_cameras_come_at_the_original_size_with_points_both_photos_see() -> None:
    views = plain_views()
    solved = cameras_by_network(views, true_answer, Progress())
    assert solved.cameras.width == (WIDTH,) * VIEWS
    torch.testing.assert_close(solved.cameras.K[0, :2].float(), torch.tensor([[110.0, 0, WIDTH / 2], [0, 110, HEIGHT / 2]]))
    assert solved.cameras.registered_mask.all()
    assert len(solved.points_world) > 500
    assert int(solved.visibility.sum(0).min()) >= 2
    depths = solved.points_world[:, 2] / SCALE
    assert bool(((depths - 3).abs().minimum((depths - 5).abs()) < 1e-4).all())
    assert solved.reprojection_error_px < 0.05
    assert solved.observations_px is not None
    assert bool((solved.observations_px >= 0).all() & (solved.observations_px[:, 0] < WIDTH).all())
    seen_by_inputs = solved.visibility[[i for i, view in enumerate(views) if not view.holdout]]
    assert bool(seen_by_inputs.any(0).all())  # held-out photos offer no points


def test_a_lens_the_user_knows_replaces_the_predicted_one() -> None:
    lens = (104.0, 106.0, WIDTH / 2 + 1, HEIGHT / 2 - 1, -0.05, 0.0, 0.0, 0.0)
    views = Views(tuple(replace(view, intrinsics=lens if i == 0 else None) for i, view in enumerate(plain_views())))
    solved = cameras_by_network(views, true_answer, Progress())
    assert solved.cameras.distortion is not None
    assert solved.cameras.K[0, [0, 1, 0, 1], [0, 1, 2, 2]].tolist() == list(lens[:4])
    assert solved.cameras.distortion[0].tolist() == list(lens[4:])
    torch.testing.assert_close(solved.cameras.K[1, 0, 0].float(), torch.tensor(110.0))
    assert float(solved.cameras.distortion[1].abs().max()) == 0


def test_a_scene_with_a_networks_cameras(tmp_path: Path) -> None:
    config = config_for(tmp_path, cameras="oracle", holdout=Holdout(every=5, offset=2))
    result = run_pipeline(write_capture(tmp_path), tmp_path / "out", config, tools_with(true_answer), Progress())
    assert result.report["quality"]["psnr_mean"] > 17
    assert result.report["choices"]["cameras"]["source"] == "network"
    assert result.report["choices"]["cameras"]["network"] == "oracle"
    assert result.report["choices"]["model"] == "plane-sweep"
    assert (tmp_path / "out" / "colmap").is_dir()


@pytest.mark.parametrize(("model", "polish", "adjusts"), [("oracle", 0.0, False), ("oracle", 1.0, True), ("mini", 0.0, True)])
def test_gaussians_of_the_same_network_keep_its_cameras(
    tmp_path: Path, monkeypatch, model: str, polish: float, adjusts: bool
) -> None:
    asked: list[bool] = []

    def cameras_of(*args, adjust: bool, **others) -> SfmResult:
        asked.append(adjust)
        raise UserError("Enough is known.", "Stop here.")

    monkeypatch.setattr(stage, "cameras_of", cameras_of)
    config = replace(config_for(tmp_path, cameras="oracle"), model=model, polish=polish)
    with pytest.raises(UserError, match="Enough"):
        run_pipeline(write_capture(tmp_path), None, config, tools_with(true_answer), Progress())
    assert asked == [adjusts]


@pytest.mark.parametrize("most", [None, 200])
def test_a_networks_gaussians_are_taken_as_they_are(tmp_path: Path, most: int | None) -> None:
    made = 500
    generator = torch.Generator().manual_seed(0)
    gaussians = Gaussians(
        means=torch.rand(made, 3, generator=generator) * torch.tensor([2.0, 1.5, 0.1]) + torch.tensor([-1.0, -0.75, 3.0]),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(made, 1),
        scales=0.02 + 0.08 * torch.rand(made, 3, generator=generator),
        opacities=torch.full((made,), 0.9),
        sh=rgb_to_sh0(torch.rand(made, 1, 3, generator=generator)),
    )

    def predictor(posed, neighbours, depth_range, progress) -> Prediction:
        depth = tuple(torch.full((48, 64), 3.0) for _ in posed.names)
        cameras = posed.cameras.resized(64, 48)
        return Prediction(cameras=cameras, depth=depth, confidence=tuple(d / 4 for d in depth), gaussians=gaussians)

    photos = write_capture(tmp_path)
    tools = tools_with(true_answer, load_predictor=lambda name, device, weights: predictor)
    config = config_for(tmp_path, model="anysplat", fuse=FuseConfig(max_gaussians=most))
    result = run_pipeline(photos, None, config, tools, Progress())
    kept = result.scene.gaussians
    assert len(kept) == (most or made)
    assert result.report["choices"]["gaussians"] == {"source": "network", "made": made}
    if most is None:
        assert torch.equal(kept.means, gaussians.means)
    else:
        assert float(kept.scales.mean()) > float(gaussians.scales.mean())
