"""What must hold whatever the scene: the world may be moved, cameras and Gaussians reordered, pictures cut and scaled."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from raster_scenes import FIELDS, cameras_around, random_scene, with_changes

from recon.geometry import quats_to_rotations, rotations_to_quats
from recon.records import Cameras, Gaussians, RasterOptions
from render.rasterizer import load_rasterizer

TOLERANCE = 2e-4  # float32 positions moved by a rigid motion, then projected
draw = load_rasterizer("cpu")


def moved(gaussians: Gaussians, cameras: Cameras, T_new_old: torch.Tensor) -> tuple[Gaussians, Cameras]:
    """Move Gaussians (degree 0) and cameras together."""
    R = T_new_old[:3, :3]
    means = gaussians.means.double() @ R.T + T_new_old[:3, 3]
    quats = rotations_to_quats(R @ quats_to_rotations(gaussians.quats.double()))
    T_new_cam = T_new_old @ cameras.T_world_cam.double()
    return with_changes(gaussians, means=means.float(), quats=quats.float()), replace(cameras, T_world_cam=T_new_cam.float())


def test_moving_the_world_leaves_the_picture() -> None:
    gaussians, cameras = random_scene(300, sh_degree=0), cameras_around(2)
    T_new_old = torch.eye(4, dtype=torch.float64)
    T_new_old[:3, :3] = quats_to_rotations(torch.tensor([0.3, -0.5, 0.7, 0.2], dtype=torch.float64))
    T_new_old[:3, 3] = torch.tensor([1.5, -0.7, 0.4], dtype=torch.float64)
    before, after = draw(gaussians, cameras), draw(*moved(gaussians, cameras, T_new_old))
    # A pixel may cross the 1/255 cut-off: a step of at most 0.004 times a colour.
    close = (before.color - after.color).abs().amax(dim=-1) < TOLERANCE
    assert close.float().mean() > 0.99
    assert (before.color - after.color).abs().max() < 0.02
    assert ((before.depth - after.depth).abs() < 1e-3).float().mean() > 0.99


def test_scaling_the_world_scales_depth_only() -> None:
    gaussians, cameras = random_scene(300), cameras_around(1)
    T_world_cam = cameras.T_world_cam.clone()
    T_world_cam[:, :3, 3] *= 4.0  # powers of two are exact
    larger = with_changes(gaussians, means=gaussians.means * 4.0, scales=gaussians.scales * 4.0)
    before, after = draw(gaussians, cameras), draw(larger, replace(cameras, T_world_cam=T_world_cam))
    assert (before.color - after.color).abs().max() < 1e-5
    assert (4.0 * before.depth - after.depth).abs().max() < 1e-4


def test_order_of_cameras_is_order_of_pictures() -> None:
    gaussians, cameras = random_scene(200), cameras_around(4)
    options = RasterOptions(contribution=True)
    forward, backward = draw(gaussians, cameras, options), draw(gaussians, cameras.select([3, 2, 1, 0]), options)
    assert torch.equal(forward.color, backward.color.flip(0))
    assert torch.equal(forward.contribution, backward.contribution.flip(0))


def test_order_of_gaussians_does_not_matter() -> None:
    gaussians, cameras = random_scene(500), cameras_around(2)
    g = torch.Generator().manual_seed(0)
    shuffle = torch.randperm(500, generator=g)
    options = RasterOptions(contribution=True)
    first, second = draw(gaussians, cameras, options), draw(gaussians.select(shuffle), cameras, options)
    assert torch.equal(first.color, second.color)
    assert torch.allclose(first.contribution[:, shuffle], second.contribution)


def test_a_cut_of_the_picture_is_the_picture_cut() -> None:
    # The Jacobian's clamp depends on the frame, so keep to Gaussians well within the view.
    gaussians, cameras = random_scene(300, spread=0.25), cameras_around(1, width=64, height=48)
    K = cameras.K.clone()
    K[:, 0, 2] -= 16
    K[:, 1, 2] -= 8
    cut = draw(gaussians, replace(cameras, K=K, width=32, height=32))
    assert (draw(gaussians, cameras).color[:, 8:40, 16:48] - cut.color).abs().max() < 1e-4


def test_background_shows_through_in_proportion() -> None:
    gaussians, cameras = random_scene(200), cameras_around(1)
    black, white = draw(gaussians, cameras), draw(gaussians, cameras, RasterOptions(background=(1.0, 1.0, 1.0)))
    assert torch.allclose(white.color - black.color, (1 - black.alpha)[..., None].expand_as(white.color), atol=1e-5)


def test_contributions_add_up_to_alpha() -> None:
    drawn = draw(random_scene(300), cameras_around(2), RasterOptions(contribution=True))
    assert torch.allclose(drawn.contribution.sum(dim=1), drawn.alpha.sum(dim=(1, 2)), rtol=1e-4)


def test_one_gaussian_by_hand() -> None:
    """sigma 0.1 at 2 m with f = 100 px: 5 px, blurred to variance 25.3; colour 0.5 + 0.28209479 * 0.5."""
    gaussians = Gaussians(
        means=torch.tensor([[0.0, 0.0, 2.0]]),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        scales=torch.full((1, 3), 0.1),
        opacities=torch.tensor([0.8]),
        sh=torch.full((1, 1, 3), 0.5),
    )
    K = torch.tensor([[[100.0, 0.0, 20.5], [0.0, 100.0, 20.5], [0.0, 0.0, 1.0]]])
    cameras = Cameras(T_world_cam=torch.eye(4)[None], K=K, width=41, height=41)
    drawn = draw(gaussians, cameras, RasterOptions(median_depth=True, normals=True))
    assert drawn.alpha[0, 20, 20].item() == pytest.approx(0.8, abs=1e-6)
    assert drawn.alpha[0, 20, 25].item() == pytest.approx(0.8 * 2.718281828 ** (-0.5 * 25 / 25.3), abs=1e-6)
    assert drawn.alpha[0, 20, 20 + 17].item() == 0.0  # 0.8 exp(-17^2 / 50.6) = 0.0026 < 1/255
    assert drawn.color[0, 20, 20, 0].item() == pytest.approx(0.8 * 0.64104739, abs=1e-6)
    assert drawn.depth[0, 20, 20].item() == pytest.approx(2.0, abs=1e-6)
    assert drawn.median_depth[0, 20, 20].item() == pytest.approx(2.0, abs=1e-6)
    assert drawn.normals[0, 20, 20].norm().item() == pytest.approx(0.8, abs=1e-6)


def test_float64_input_is_taken() -> None:
    gaussians, cameras = random_scene(50), cameras_around(1)
    wide = Gaussians(**{field: getattr(gaussians, field).double().requires_grad_() for field in FIELDS})
    drawn = draw(wide, cameras)
    assert torch.equal(drawn.color.detach(), draw(gaussians, cameras).color)
    drawn.color.sum().backward()
    assert wide.means.grad.dtype == torch.float64
