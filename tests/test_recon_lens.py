"""Undistortion puts known points where a pinhole camera sees them, to a fiftieth of a pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from recon.cameras.camera_files import load_cameras, write_cameras_json
from recon.cameras.result import blank_cameras
from recon.geometry import project
from recon.lens import pinhole_cameras, posed_views, sampling_map, undistort
from recon.photos import open_photos

POSITION_TOLERANCE_PX = 0.02
"""Error of positions: the half pixel of another convention would be 25 times this."""
KERNEL_TOLERANCE_PX = 0.1
"""OpenCV's cubic kernel (a = -0.75) is itself up to 0.09 px off on a ramp."""
WIDTH, HEIGHT = 240, 180
K = torch.tensor([[200.0, 0.0, 123.3], [0.0, 210.0, 85.7], [0.0, 0.0, 1.0]])
LENS = torch.tensor([-0.15, 0.03, 0.002, -0.003])


def bend(points: torch.Tensor) -> torch.Tensor:
    """OpenCV's k1 k2 p1 p2 on normalised coordinates, written out by hand."""
    x, y = points[:, 0], points[:, 1]
    k1, k2, p1, p2 = LENS.double()
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2 * r2
    return torch.stack(
        [x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y], 1
    )


def unbend(bent: torch.Tensor) -> torch.Tensor:
    """Inverse of ``bend`` by fixed-point iteration."""
    points = bent.clone()
    for _ in range(60):
        points = points - (bend(points) - bent)
    return points


def test_every_pixel_shows_what_the_pinhole_sees_there():
    """A photo whose colour is the straight position of each pixel: after undistortion, colour and place must agree."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    grid = torch.stack([x, y], -1).reshape(-1, 2).double()
    focal, centre = torch.stack([K[0, 0], K[1, 1]]).double(), K[:2, 2].double()
    straight = unbend((grid - centre) / focal) * focal + centre
    assert (straight - grid).norm(dim=1).max() > 2.0
    spread, offset = 300.0, 20.0  # keeps every colour within [0, 1]
    colours = torch.cat([(straight + offset) / spread, torch.zeros(len(grid), 1)], 1)
    assert 0 <= colours.min() <= colours.max() <= 1
    photo = colours.float().reshape(HEIGHT, WIDTH, 3)
    flat, valid = undistort(photo, K, LENS, K_out=K, width_out=WIDTH, height_out=HEIGHT)
    inner = valid[2:-2, 2:-2]
    shown = flat[..., :2].double() * spread - offset
    error = (shown - torch.stack([x, y], -1)).norm(dim=-1)[2:-2, 2:-2][inner]
    assert inner.float().mean() > 0.9
    assert error.max() < KERNEL_TOLERANCE_PX


def test_known_points_are_sampled_where_the_lens_put_them():
    """Points projected by hand with distortion lie in the photo where the map looks for their straight places."""
    K_out = torch.tensor([[150.0, 0, 100.2], [0, 160.0, 80.4], [0, 0, 1]])
    across, down = sampling_map(K, LENS.double().numpy(), K_out=K_out, width_out=200, height_out=160)
    pixels = torch.tensor([[px + 0.5, py + 0.5] for px in (10, 60, 150, 190) for py in (5, 80, 150)], dtype=torch.float64)
    points = (pixels - K_out[:2, 2].double()) / torch.stack([K_out[0, 0], K_out[1, 1]]).double()
    wanted, _ = project(torch.cat([bend(points), torch.ones(len(points), 1, dtype=torch.float64)], 1), K.double())
    rows, columns = pixels[:, 1].long().numpy(), pixels[:, 0].long().numpy()
    found = torch.from_numpy(np.stack([across[rows, columns], down[rows, columns]], 1)).double() + 0.5
    assert (found - wanted).norm(dim=1).max() < POSITION_TOLERANCE_PX


def test_without_a_lens_a_shift_of_the_centre_shifts_the_picture():
    image = torch.rand(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0))
    K_out = K.clone()
    K_out[0, 2] += 10
    moved, valid = undistort(image, K, None, K_out=K_out, width_out=WIDTH, height_out=HEIGHT)
    assert torch.allclose(moved[:, 10:], image[:, :-10], atol=1e-4)
    assert valid[:, 10:].all()
    assert not valid[:, :9].any()
    assert (moved[:, :9] == 0).all()


def test_a_straight_lens_returns_the_photo_itself():
    image = torch.rand(HEIGHT, WIDTH, 3)
    same, valid = undistort(image, K, torch.zeros(4), K_out=K, width_out=WIDTH, height_out=HEIGHT)
    assert torch.equal(same, image)
    assert valid.all()


def test_barrel_distortion_leaves_the_frame_full_and_pincushion_shows_the_border():
    image = torch.ones(HEIGHT, WIDTH, 3)
    centred = torch.tensor([[200.0, 0, WIDTH / 2], [0, 200.0, HEIGHT / 2], [0, 0, 1]])
    for k1, full in ((-0.15, True), (0.15, False)):
        lens = torch.tensor([k1, 0, 0, 0])
        flat, valid = undistort(image, centred, lens, K_out=centred, width_out=WIDTH, height_out=HEIGHT)
        assert bool(valid.all()) == full
        assert valid[HEIGHT // 2, WIDTH // 2]
        assert (flat[valid] > 0.999).all()
        assert (flat[~valid] == 0).all()


def test_rays_a_strong_lens_folds_back_are_not_valid():
    """Beyond the turning point of r (1 + k1 r^2) the formula comes back into the picture; no light did."""
    image = torch.ones(HEIGHT, WIDTH, 3)
    wide = torch.tensor([[60.0, 0, WIDTH / 2], [0, 60.0, HEIGHT / 2], [0, 0, 1]])
    lens = torch.tensor([-0.2, 0.0, 0.0, 0.0])
    _, valid = undistort(image, wide, lens, K_out=wide, width_out=WIDTH, height_out=HEIGHT)
    turning = (1 / (3 * 0.2)) ** 0.5
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    r = torch.hypot((x - WIDTH / 2) / 60, (y - HEIGHT / 2) / 60)
    assert (r > turning).any()
    assert not valid[r > turning + 0.02].any()
    assert valid[r < turning - 0.02].all()


def test_positions_agree_with_opencv_points():
    """Outside witness: cv2.undistortPoints, told of the half pixel, sends bent pixels to the straight ones."""
    points = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 0.8 - 0.4
    bent, _ = project(torch.cat([bend(points), torch.ones(50, 1, dtype=torch.float64)], 1), K.double())
    moved = K.double().numpy().copy()
    moved[:2, 2] -= 0.5
    back = cv2.undistortPoints((bent.numpy() - 0.5)[:, None], moved, LENS.double().numpy()).reshape(-1, 2)
    assert np.abs(back - points.numpy()).max() < 1e-4


@pytest.fixture
def capture(tmp_path):
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((480, 360)).save(tmp_path / f"{i}.png")
    views = open_photos(tmp_path, long_side=120).views
    cameras = blank_cameras(views)
    cameras.registered[:] = True
    cameras.distortion[1] = torch.tensor([-0.1, 0.0, 0.0, 0.0])
    write_cameras_json(tmp_path / "cameras.json", cameras, views)
    return views, load_cameras(tmp_path / "cameras.json", views)


def test_pinhole_cameras_scale_to_the_working_size(capture):
    views, solved = capture
    small = pinhole_cameras(solved.cameras, views, long_side=120)
    assert small.distortion is None
    assert (small.width, small.height) == ((120,) * 3, (90,) * 3)
    assert torch.allclose(small.K[:, :2].double(), solved.cameras.K[:, :2] / 4)


def test_posed_views_read_undistorted_photos(capture):
    views, solved = capture
    posed = posed_views(views, solved, [0, 1], long_side=120)
    assert posed.names == ("0.png", "1.png")
    image, valid = posed.pixels(0)
    assert torch.equal(image, views[0].load_at(120, 90))
    assert valid.all()
    bent, _ = posed.pixels(1)
    assert bent.shape == (90, 120, 3)
    assert not torch.equal(bent, views[1].load_at(120, 90))
    assert torch.allclose(bent[45, 60], views[1].load_at(120, 90)[45, 60], atol=0.02)
