"""The shipped sample: its files, its EXIF, and that photos, true cameras and the script that made them belong together."""

import json

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from data import make_sample
from data.sample_room import TABLE_SIZE, TABLE_Z
from data.sample_scene import MATERIALS, parts
from data.sample_still_life import FACING_DEG
from data.sample_tracer import build_world, depth_map, trace
from recon.cameras.camera_files import load_cameras
from recon.photos import open_photos

from helpers import REPOSITORY

TRUTH = REPOSITORY / "data" / "sample_cameras.json"
SMALL_WIDTH = 160


@pytest.fixture(scope="module")
def world():
    """The geometry of the scene."""
    return build_world(parts())


@pytest.fixture(scope="module")
def depth_maps(world):
    """z-depth in metres of three shots: two neighbours in the lower row and the one above them."""
    size = (SMALL_WIDTH, SMALL_WIDTH * make_sample.HEIGHT // make_sample.WIDTH)
    return {i: depth_map(world, make_sample.intrinsics(*size), shots()[i].T_world_cam, size) for i in (1, 2, 7)}


def shots() -> list:
    return make_sample.plan_shots()


def photo(folder, index: int) -> np.ndarray:
    """A shipped photo at the width of the depth maps, float in [0, 1]."""
    with Image.open(folder / shots()[index].name) as image:
        small = image.resize((SMALL_WIDTH, SMALL_WIDTH * image.height // image.width), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64) / 255.0


def seen_from(depth_maps: dict, i: int, j: int, T_world_cam_j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where in view j the pixels of view i lie (``H W 2``, pixels) and how deep there (``H W``, metres)."""
    height, width = depth_maps[i].shape
    K = make_sample.intrinsics(width, height)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], axis=-1)
    T = shots()[i].T_world_cam
    points_world = (rays * depth_maps[i][..., None]) @ T[:3, :3].T + T[:3, 3]
    points_cam = (points_world - T_world_cam_j[:3, 3]) @ T_world_cam_j[:3, :3]
    return points_cam[..., :2] / points_cam[..., 2:] * [K[0, 0], K[1, 1]] + [K[0, 2], K[1, 2]], points_cam[..., 2]


def agreement(depth_maps: dict, folder, i: int, j: int, T_world_cam_j: np.ndarray) -> tuple[float, float]:
    """Share of the pixels of photo i that photo j also sees, and how well the colours correlate there."""
    at, depth = seen_from(depth_maps, i, j, T_world_cam_j)
    height, width = depth.shape
    column, row = np.floor(at[..., 0]).astype(int), np.floor(at[..., 1]).astype(int)
    inside = (depth > 0.05) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = column.clip(0, width - 1), row.clip(0, height - 1)
    visible = inside & (np.abs(depth_maps[j][row, column] - depth) < 0.03 * depth)
    here, there = photo(folder, i)[visible], photo(folder, j)[row[visible], column[visible]]
    return float(visible.mean()), float(np.corrcoef(here.ravel(), there.ravel())[0, 1])


def test_folder_holds_a_small_capture_and_nothing_else(sample_photos):
    files = sorted(sample_photos.iterdir())
    assert [f.name for f in files] == sorted(shot.name for shot in shots())
    assert len(files) == 16
    assert sum(f.stat().st_size for f in files) <= 3e6
    for file in files:
        with Image.open(file) as image:
            image.load()
            assert (image.format, image.size) == ("JPEG", (make_sample.WIDTH, make_sample.HEIGHT))


def test_exif_names_the_camera_and_the_true_focal_length(sample_photos):
    for file in sorted(sample_photos.iterdir()):
        with Image.open(file) as image:
            tags = image.getexif()
            details = tags.get_ifd(ExifTags.IFD.Exif)
        assert (tags[ExifTags.Base.Make], tags[ExifTags.Base.Model]) == ("recon", "recon sample camera")
        assert details[ExifTags.Base.FocalLengthIn35mmFilm] == make_sample.FOCAL_35MM
        assert not tags.get_ifd(ExifTags.IFD.GPSInfo)
    views = open_photos(sample_photos, long_side=640).views
    for view in views:
        assert view.focal_px == pytest.approx(make_sample.FOCAL_PX, rel=1e-6)
    assert len({view.camera_id for view in views}) == 1


def test_true_cameras_are_those_of_the_script_and_load(sample_photos):
    record = json.loads(TRUTH.read_text())
    assert record == json.loads(json.dumps(make_sample.cameras_record(shots())))
    solved = load_cameras(TRUTH, open_photos(sample_photos, long_side=640).views)
    assert solved.cameras.registered_mask.all()
    R = solved.cameras.T_world_cam[:, :3, :3]
    assert torch.allclose(R @ R.transpose(1, 2), torch.eye(3, dtype=R.dtype).expand_as(R), atol=1e-9)
    assert (torch.linalg.det(R) > 0).all()


def test_cameras_walk_in_a_loop_and_look_at_the_table():
    centers = np.stack([shot.T_world_cam[:3, 3] for shot in shots()])
    angles = np.degrees(np.arctan2(centers[:, 0], -centers[:, 1])) - FACING_DEG
    assert np.ptp(angles) == pytest.approx(make_sample.ARC_DEG, abs=3)
    assert np.ptp(centers[:, 2]) > 1.5 * make_sample.LOOP_RISE_M
    steps = np.linalg.norm(np.roll(centers, -1, axis=0) - centers, axis=1)
    assert steps.min() > 0.03
    assert steps.max() < 0.3  # half a step of a person, and back to where the walk began
    for shot in shots():
        middle = np.linalg.inv(shot.T_world_cam) @ [*make_sample.TARGET, 1.0]
        at = middle[:2] / middle[2] * make_sample.FOCAL_PX
        assert middle[2] > 0.8
        assert np.abs(at).max() < 40  # pixels from the centre of the photo


def test_every_material_is_used_and_every_part_has_one():
    assert {name for name, _ in parts()} == set(MATERIALS)


@pytest.mark.parametrize("corner", ["right front", "left front", "right back", "left back"])
def test_a_known_corner_is_hit_where_its_projection_lies(world, corner):
    """The corners of the table top: a ray through their projection ends at them, or at what stands before them."""
    point = np.array([0.5 * TABLE_SIZE[0], 0.5 * TABLE_SIZE[1], TABLE_Z])
    point *= [1 if "right" in corner else -1, -1 if "front" in corner else 1, 1]
    stack, hits = np.empty(64, np.int32), 0
    inner = point - [0.004 * np.sign(point[0]), 0.004 * np.sign(point[1]), 0.0]  # just inside, so that the ray meets the top
    for shot in shots():
        T, K = shot.T_world_cam, make_sample.intrinsics()
        cam = T[:3, :3].T @ (inner - T[:3, 3])
        pixel = K @ (cam / cam[2])
        if cam[2] < 0.1:
            continue
        ray = T[:3, :3] @ np.linalg.inv(K) @ pixel
        t, triangle, _, _ = trace(world, stack, tuple(T[:3, 3]), tuple(ray / np.linalg.norm(ray)), 1e30, False)
        assert triangle >= 0
        distance = np.linalg.norm(inner - T[:3, 3])
        assert t <= distance + 1e-6  # something may stand in between, nothing may be behind
        hits += abs(t - distance) < 1e-6
    assert hits >= 2


@pytest.mark.parametrize(("i", "j"), [(1, 2), (2, 1), (1, 7)])
def test_photos_agree_where_their_cameras_say_they_should(sample_photos, depth_maps, i, j):
    """Colours of one photo, carried by the script's depth, match another; with a camera turned by 2 degrees they do not."""
    T = shots()[j].T_world_cam
    overlap, right = agreement(depth_maps, sample_photos, i, j, T)
    assert overlap > 0.6
    assert right > 0.9
    turn = np.eye(4)
    a = np.radians(2.0)
    turn[:3, :3] = [[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]
    wrong = agreement(depth_maps, sample_photos, i, j, T @ turn)[1]
    assert wrong < right - 0.15


def test_exposure_is_deterministic_and_noise_is_small():
    light = np.full((48, 64, 3), 0.2)
    first, again = make_sample.expose(light, shots()[0]), make_sample.expose(light, shots()[0])
    assert np.array_equal(first, again)
    clean = make_sample.expose(light, shots()[0], noise=False)
    spread = np.std(first.astype(float) - clean)
    assert 1.0 < spread < 6.0  # 8-bit steps; a small sensor at ISO 200
    assert clean[24, 32].mean() > clean[0, 0].mean()  # darker towards the corners


@pytest.mark.slow
def test_structure_from_motion_finds_the_true_cameras(sample_photos):
    from recon.alignment import sim3_align
    from recon.cameras.auto import run_sfm
    from recon.progress import Progress

    views = open_photos(sample_photos, long_side=640).views
    solved = run_sfm(views, progress=Progress(), seed=0).cameras
    truth = load_cameras(TRUTH, views).cameras
    found = solved.registered_mask
    assert int(found.sum()) == make_sample.PHOTOS
    assert solved.K[found, 0, 0].numpy() == pytest.approx(make_sample.FOCAL_PX, rel=0.02)
    move = sim3_align(solved.centers_world[found], truth.centers_world[found])
    error_m = (move.apply(solved.centers_world[found]) - truth.centers_world[found]).norm(dim=1)
    assert error_m.max() < 0.02  # at 1.3 m from the table
