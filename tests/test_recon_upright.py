"""Worlds come out with down along +y, however the photographer held the camera."""

from __future__ import annotations

import math

import pytest
import torch

from recon.cameras.result import SfmResult
from recon.geometry import quats_to_rotations
from recon.records import Cameras
from recon.upright import turn, up_world, upright_rotation

UP = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)


def looking(directions: torch.Tensor, roll_deg: torch.Tensor | None = None) -> torch.Tensor:
    """Camera axes R_world_cam (right, down, forward) of cameras in an upright world, rolled about their axes."""
    z = torch.nn.functional.normalize(directions.double(), dim=1)
    x = torch.nn.functional.normalize(torch.linalg.cross(-UP.expand_as(z), z), dim=1)
    R = torch.stack([x, torch.linalg.cross(z, x), z], dim=2)
    if roll_deg is None:
        return R
    a = torch.deg2rad(roll_deg.double())
    spin = torch.zeros(len(R), 3, 3, dtype=torch.float64)
    spin[:, 0, 0], spin[:, 0, 1], spin[:, 1, 0], spin[:, 1, 1], spin[:, 2, 2] = a.cos(), -a.sin(), a.sin(), a.cos(), 1
    return R @ spin


def cameras_in_some_world(R_up_cam: torch.Tensor, seed: int = 0) -> tuple[Cameras, torch.Tensor]:
    """The same cameras seen from an arbitrary world, and that world's true up."""
    generator = torch.Generator().manual_seed(seed)
    quat = torch.nn.functional.normalize(torch.randn(1, 4, generator=generator, dtype=torch.float64), dim=1)
    R_world_up = quats_to_rotations(quat)[0]
    T = torch.eye(4, dtype=torch.float64).repeat(len(R_up_cam), 1, 1)
    T[:, :3, :3] = R_world_up @ R_up_cam
    T[:, :3, 3] = torch.randn(len(R_up_cam), 3, generator=generator, dtype=torch.float64)
    K = torch.eye(3, dtype=torch.float64).repeat(len(T), 1, 1)
    return Cameras(T_world_cam=T, K=K, width=4, height=4), R_world_up @ UP


def ring(count: int, pitch_deg: float, span_deg: float = 360.0) -> torch.Tensor:
    """Viewing directions of an orbit that looks down by a pitch."""
    a = torch.deg2rad(torch.arange(count) * span_deg / count)
    down = math.tan(math.radians(pitch_deg))
    return torch.stack([a.cos(), torch.full_like(a, down), a.sin()], dim=1)


def off_deg(cameras: Cameras, true_up: torch.Tensor) -> float:
    return math.degrees(math.acos(min(1.0, float(up_world(cameras) @ true_up))))


@pytest.mark.parametrize("seed", range(3))
def test_an_orbit_looking_down_is_upright(seed):
    """A half orbit looking 40 degrees down: the mean image up alone would be 25 degrees off."""
    cameras, up = cameras_in_some_world(looking(ring(12, 40, span_deg=180)), seed)
    assert off_deg(cameras, up) < 0.1


def test_a_few_rolled_photos_do_not_count():
    roll = torch.zeros(16)
    roll[[2, 9]] = torch.tensor([90.0, -90.0])
    roll += torch.randn(16, generator=torch.Generator().manual_seed(0)) * 2
    cameras, up = cameras_in_some_world(looking(ring(16, 20), roll))
    assert off_deg(cameras, up) < 12


def test_a_forward_facing_set_takes_the_images_up():
    jitter = torch.randn(10, 3, generator=torch.Generator().manual_seed(0)) * 0.03
    cameras, up = cameras_in_some_world(looking(torch.tensor([0.0, 0.0, 1.0]) + jitter))
    assert off_deg(cameras, up) < 4


def test_a_drone_that_looks_straight_down_has_its_ground_below():
    a = torch.arange(8) * math.tau / 8
    tilt = torch.stack([a.cos() * 1e-3, torch.ones(8), a.sin() * 1e-3], 1)
    cameras, up = cameras_in_some_world(looking(tilt))
    assert off_deg(cameras, up) < 1


def test_unregistered_cameras_have_no_say():
    R = torch.cat([looking(ring(8, 10)), looking(ring(8, 10), torch.full((8,), 180.0))])
    cameras, up = cameras_in_some_world(R)
    flags = torch.arange(16) < 8
    kept = Cameras(T_world_cam=cameras.T_world_cam, K=cameras.K, width=4, height=4, registered=flags)
    assert off_deg(kept, up) < 0.1


def test_turning_moves_cameras_and_points_together():
    cameras, up = cameras_in_some_world(looking(ring(8, 30)))
    cameras = Cameras(T_world_cam=cameras.T_world_cam, K=cameras.K, width=4, height=4, registered=torch.arange(8) < 7)
    points = torch.randn(20, 3, dtype=torch.float64)
    solved = SfmResult(
        cameras=cameras,
        points_world=points,
        points_rgb=torch.zeros(20, 3, dtype=torch.uint8),
        visibility=torch.ones(8, 20, dtype=torch.bool),
        reprojection_error_px=0.0,
        per_view_points=torch.full((8,), 20),
    )
    R = upright_rotation(cameras)
    turned = turn(solved, R)
    assert torch.allclose(R @ up, UP, atol=2e-2)
    assert torch.allclose(R @ R.T, torch.eye(3, dtype=torch.float64), atol=1e-12)
    assert torch.linalg.det(R) > 0
    before = points @ cameras.T_cam_world[0, :3, :3].T + cameras.T_cam_world[0, :3, 3]
    after = turned.points_world @ turned.cameras.T_cam_world[0, :3, :3].T + turned.cameras.T_cam_world[0, :3, 3]
    assert torch.allclose(before, after, atol=1e-9)
    assert torch.equal(turned.cameras.T_world_cam[7], cameras.T_world_cam[7])


def test_a_world_upside_down_is_turned_over():
    T = torch.eye(4, dtype=torch.float64).repeat(4, 1, 1)
    T[:, :3, :3] = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)) @ looking(ring(4, 0))
    cameras = Cameras(T_world_cam=T, K=torch.eye(3, dtype=torch.float64).repeat(4, 1, 1), width=4, height=4)
    assert torch.allclose(upright_rotation(cameras) @ up_world(cameras), UP, atol=1e-9)
