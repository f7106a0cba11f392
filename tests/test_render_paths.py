"""Camera paths and video files."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from recon.records import Cameras
from render.trajectories import fly_through, focus_point, orbit
from render.video import write_video


def ring(angles_deg: list[float], *, radius: float = 3.0, height: float = 1.0) -> Cameras:
    """Cameras on an arc about (0, 0, 5) in a y-down world, level, looking at it from ``height`` above."""
    target, down = torch.tensor([[0.0, 0.0, 5.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    placed = []
    for angle in map(math.radians, angles_deg):
        center = target + torch.tensor([radius * math.sin(angle), -height, -radius * math.cos(angle)], dtype=torch.float64)
        forward = torch.nn.functional.normalize(target - center, dim=0)
        right = torch.nn.functional.normalize(torch.linalg.cross(down, forward), dim=0)
        T_world_cam = torch.eye(4, dtype=torch.float64)
        T_world_cam[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=1)
        T_world_cam[:3, 3] = center
        placed.append(T_world_cam)
    K = torch.tensor([[200.0, 0.0, 80.0], [0.0, 200.0, 60.0], [0.0, 0.0, 1.0]]).repeat(len(placed), 1, 1)
    return Cameras(T_world_cam=torch.stack(placed).float(), K=K, width=160, height=120)


def assert_rigid(cameras: Cameras) -> None:
    R = cameras.T_world_cam[:, :3, :3].double()
    assert (R @ R.transpose(1, 2) - torch.eye(3, dtype=torch.float64)).abs().max() < 1e-5
    assert torch.linalg.det(R).min() > 0.99


def test_focus_is_what_the_cameras_look_at() -> None:
    assert (focus_point(ring([-40, -10, 20, 50])) - torch.tensor([0.0, 0.0, 5.0], dtype=torch.float64)).norm() < 0.05


def test_orbit_of_a_full_ring_is_a_closed_circle_at_their_height() -> None:
    path = orbit(ring(list(range(0, 360, 30))), 24)
    centers = path.centers_world.double() - torch.tensor([0.0, 0.0, 5.0], dtype=torch.float64)
    assert len(path) == 24
    assert_rigid(path)
    assert torch.allclose(centers[:, 1], torch.full((24,), -1.0, dtype=torch.float64), atol=0.02)
    assert torch.allclose(centers[:, [0, 2]].norm(dim=1), torch.full((24,), 3.0, dtype=torch.float64), atol=0.02)
    steps = (centers - centers.roll(1, 0)).norm(dim=1)
    assert steps.max() / steps.min() < 1.001


def test_orbit_of_an_arc_swings_within_it_and_loops() -> None:
    path = orbit(ring([-30, -10, 10, 30]), 40)
    centers = path.centers_world
    angles = torch.rad2deg(torch.atan2(centers[:, 0], 5.0 - centers[:, 2]))
    assert angles.abs().max() < 31.0
    assert angles.max() > 28.0
    assert angles.min() < -28.0
    assert (centers[0] - centers[-1]).norm() < 0.3
    assert_rigid(path)


def test_orbit_of_parallel_cameras_stays_near_them() -> None:
    cameras = ring([0, 0, 0])
    T_world_cam = cameras.T_world_cam.clone()
    T_world_cam[:, 0, 3] = torch.tensor([-0.2, 0.0, 0.2])
    path = orbit(Cameras(T_world_cam=T_world_cam, K=cameras.K, width=160, height=120), 10)
    assert_rigid(path)
    assert (path.centers_world - T_world_cam[1, :3, 3]).norm(dim=1).max() < 1.0
    assert (path.T_world_cam[:, :3, 2] @ T_world_cam[1, :3, 2]).min() > 0.5


def test_paths_have_even_sizes_and_keep_the_field_of_view() -> None:
    path = orbit(ring([0, 40]), 3, width=321, height=241)
    assert (path.width[0], path.height[0]) == (320, 240)
    assert path.K[0, 1, 1].item() == pytest.approx(400.0)
    assert path.K[0, 0, 2].item() == pytest.approx(160.0)


def test_flight_passes_through_every_camera_at_even_speed() -> None:
    cameras = ring([0, 25, 50, 75, 100])
    path = fly_through(cameras, 81)
    gaps = torch.cdist(cameras.centers_world, path.centers_world).min(dim=1).values
    assert gaps.max() < 0.02
    assert_rigid(path)
    steps = (path.centers_world[1:] - path.centers_world[:-1]).norm(dim=1)
    assert steps.max() / steps.min() < 1.35
    assert torch.allclose(path.T_world_cam[0], cameras.T_world_cam[0], atol=1e-5)
    assert torch.allclose(path.T_world_cam[-1], cameras.T_world_cam[-1], atol=1e-5)


def test_paths_of_one_camera_and_of_none() -> None:
    one = ring([10])
    assert_rigid(orbit(one, 5))
    still = fly_through(one, 3)
    assert torch.allclose(still.T_world_cam, one.T_world_cam.expand(3, 4, 4), atol=1e-5)
    with pytest.raises(ValueError, match="at least one, got none"):
        orbit(one.select([]), 5)
    with pytest.raises(ValueError, match="frames: wanted at least 1, got 0"):
        fly_through(one, 0)


def test_video_reads_back(tmp_path: Path) -> None:
    shades = [0.1, 0.5, 0.9, 0.3]
    count = write_video(tmp_path / "a.mp4", (torch.full((48, 65, 3), shade) for shade in shades), fps=10)
    assert count == 4
    reader = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert reader.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    frames = []
    while True:
        read, frame = reader.read()
        if not read:
            break
        frames.append(frame)
    reader.release()
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 4
    assert np.allclose([frame.mean() / 255 for frame in frames], shades, atol=0.02)


def test_video_keeps_red_red(tmp_path: Path) -> None:
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 220
    write_video(tmp_path / "red.mp4", [red, red])
    reader = cv2.VideoCapture(str(tmp_path / "red.mp4"))
    _, frame = reader.read()
    reader.release()
    assert frame[..., 2].mean() > 190
    assert frame[..., 0].mean() < 40


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        ([], 30, "at least one, got none"),
        ([np.zeros((4, 4))], 30, "wanted H W 3"),
        ([np.zeros((4, 4, 3)), np.zeros((6, 4, 3))], 30, "wanted one size"),
        ([np.zeros((1, 4, 3))], 30, "at least 2x2"),
        ([np.zeros((4, 4, 3))], 0, "fps: wanted more than 0"),
    ],
)
def test_video_refuses_what_cannot_be_a_video(tmp_path: Path, frames: list, fps: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "a.mp4", frames, fps=fps)
