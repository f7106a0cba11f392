"""Cameras the user brings are kept to the last digit, in every format, and wrong files say what is wrong."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from recon.cameras.camera_files import OPENGL_TO_OPENCV, load_cameras, write_cameras_json, write_transforms_json
from recon.cameras.colmap_models import write_colmap_model
from recon.cameras.result import SfmResult, blank_cameras
from recon.errors import UserError
from recon.geometry import quats_to_rotations
from recon.photos import open_photos
from recon.records import Cameras, Views

EXACT = 1e-9
"""Largest change of any number by writing and reading, in its own unit."""


@pytest.fixture
def views(tmp_path) -> Views:
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        size = (120, 160) if i == 3 else (160, 120)
        Image.fromarray(pixels).resize(size).save(tmp_path / f"shot_{i}.png")
    return open_photos(tmp_path, long_side=80).views


@pytest.fixture
def cameras(views) -> Cameras:
    """Random poses and lenses for all but photo 2."""
    g = torch.Generator().manual_seed(0)
    made = blank_cameras(views)
    made.T_world_cam[:, :3, :3] = quats_to_rotations(torch.nn.functional.normalize(torch.randn(4, 4, generator=g).double(), dim=1))
    made.T_world_cam[:, :3, 3] = torch.randn(4, 3, generator=g).double() * 100
    made.K[:, :2] += torch.rand(4, 2, 1, generator=g).double() * made.K[:, :2].sign()
    made.distortion[:] = torch.randn(4, 4, generator=g).double() * 0.05
    made.registered[:] = torch.tensor([True, True, False, True])
    made.T_world_cam[2] = torch.eye(4)
    return made


def assert_same(found: Cameras, wanted: Cameras) -> None:
    kept = wanted.registered_mask
    assert torch.equal(found.registered_mask, kept)
    assert found.K.dtype == found.T_world_cam.dtype == torch.float64
    for field in ("T_world_cam", "K", "distortion"):
        assert (getattr(found, field) - getattr(wanted, field))[kept].abs().max() < EXACT, field


def test_ours_come_back_exactly(views, cameras, tmp_path):
    write_cameras_json(tmp_path / "cameras.json", cameras, views)
    assert_same(load_cameras(tmp_path / "cameras.json", views).cameras, cameras)
    frame = json.loads((tmp_path / "cameras.json").read_text())["frames"][2]
    assert set(frame) == {"name", "width", "height", "K", "distortion", "T_world_cam", "registered", "holdout"}
    assert frame["registered"] is False


def test_transforms_come_back_exactly(views, cameras, tmp_path):
    write_transforms_json(tmp_path / "transforms.json", cameras, views)
    assert_same(load_cameras(tmp_path / "transforms.json", views).cameras, cameras)


def test_transforms_are_found_from_another_folder(views, cameras, tmp_path):
    (tmp_path / "out").mkdir()
    write_transforms_json(tmp_path / "out" / "transforms.json", cameras, views)
    frames = json.loads((tmp_path / "out" / "transforms.json").read_text())["frames"]
    assert frames[0]["file_path"] == "../shot_0.png"
    assert (tmp_path / "out" / frames[0]["file_path"]).exists()
    assert_same(load_cameras(tmp_path / "out" / "transforms.json", views).cameras, cameras)


def test_colmap_models_come_back_exactly(views, cameras, tmp_path):
    g = torch.Generator().manual_seed(1)
    visibility = torch.rand(4, 30, generator=g) > 0.4
    visibility[2] = False
    solved = SfmResult(
        cameras=cameras,
        points_world=torch.randn(30, 3, generator=g).double(),
        points_rgb=torch.randint(0, 255, (30, 3), generator=g, dtype=torch.uint8),
        visibility=visibility,
        reprojection_error_px=0.0,
        per_view_points=visibility.sum(1),
        observations_px=torch.rand(int(visibility.sum()), 2, generator=g).double() * 100,
    )
    write_colmap_model(tmp_path / "sparse" / "0", solved, views)
    back = load_cameras(tmp_path, views)
    assert_same(back.cameras, cameras)
    assert torch.equal(back.visibility, visibility)
    assert (back.observations_px - solved.observations_px).abs().max() < EXACT
    assert (back.points_world - solved.points_world).abs().max() < EXACT
    assert torch.equal(back.points_rgb, solved.points_rgb)


def colmap_text(folder, camera: str, names=("shot_0.png", "shot_1.png")) -> None:
    """A COLMAP text model as its documentation describes it: camera at x = i, looking along z."""
    folder.mkdir(exist_ok=True)
    (folder / "cameras.txt").write_text(f"# Camera list\n1 {camera}\n")
    lines = [f"{i + 1} 1 0 0 0 {-i} 0 0 1 {name}\n20.5 30.5 1\n" for i, name in enumerate(names)]
    (folder / "images.txt").write_text("# Image list\n" + "".join(lines))
    seen = " ".join(f"{i + 1} 0" for i in range(len(names)))
    (folder / "points3D.txt").write_text(f"# 3D points\n1 0.5 0 5 10 20 30 0.1 {seen}\n")


@pytest.mark.parametrize(
    ("camera", "K", "distortion"),
    [
        ("SIMPLE_PINHOLE 160 120 150 81 61", [150, 150, 81, 61], [0, 0, 0, 0]),
        ("PINHOLE 160 120 150 151 81 61", [150, 151, 81, 61], [0, 0, 0, 0]),
        ("SIMPLE_RADIAL 160 120 150 81 61 0.1", [150, 150, 81, 61], [0.1, 0, 0, 0]),
        ("RADIAL 160 120 150 81 61 0.1 0.2", [150, 150, 81, 61], [0.1, 0.2, 0, 0]),
        ("OPENCV 160 120 150 151 81 61 0.1 0.2 0.3 0.4", [150, 151, 81, 61], [0.1, 0.2, 0.3, 0.4]),
        ("FULL_OPENCV 160 120 150 151 81 61 .1 .2 .3 .4 0 0 0 0", [150, 151, 81, 61], [0.1, 0.2, 0.3, 0.4]),
        ("PINHOLE 320 240 300 302 162 122", [150, 151, 81, 61], [0, 0, 0, 0]),
    ],
)
def test_colmap_text_models_and_camera_kinds(views, tmp_path, camera, K, distortion):
    """The last one describes the photos at twice their size."""
    colmap_text(tmp_path / "model", camera)
    found = load_cameras(tmp_path / "model", views)
    fx, fy, cx, cy = K
    assert found.cameras.registered.tolist() == [True, True, False, False]
    assert found.cameras.K[1].tolist() == [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]
    assert found.cameras.distortion[0].tolist() == distortion
    assert found.cameras.centers_world[:2].tolist() == [[0, 0, 0], [1, 0, 0]]
    assert found.points_world.tolist() == [[0.5, 0, 5]]
    assert found.points_rgb.tolist() == [[10, 20, 30]]
    assert found.visibility[:, 0].tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    "kind", ["OPENCV_FISHEYE 160 120 150 150 80 60 0 0 0 0", "FULL_OPENCV 160 120 150 151 81 61 .1 .2 0 0 .5 0 0 0"]
)
def test_lenses_that_cannot_be_expressed_are_refused(views, tmp_path, kind):
    colmap_text(tmp_path / "model", kind)
    with pytest.raises(UserError, match=kind.split()[0]) as caught:
        load_cameras(tmp_path / "model", views)
    assert "OPENCV" in caught.value.remedy


def instant_ngp(names, **changes) -> dict:
    """The file of instant-ngp's fox, in small: paths without folders, one lens for all, OpenGL axes."""
    pose = [[1, 0, 0, 2], [0, 0, -1, 3], [0, 1, 0, 4], [0, 0, 0, 1]]
    frames = [{"file_path": name, "sharpness": 30.0, "transform_matrix": pose} for name in names]
    lens = {"camera_angle_x": 0.9, "fl_x": 150.0, "fl_y": 151.0, "k1": 0.03, "k2": -0.01, "p1": 1e-3, "p2": -2e-3}
    return {**lens, "cx": 81.0, "cy": 61.0, "w": 160.0, "h": 120.0, "aabb_scale": 4, "frames": frames} | changes


def write(path, data):
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


@pytest.mark.parametrize(
    "name", ["shot_1.png", "./images/shot_1.png", "images/shot_1", "..\\images\\shot_1.png", "/abs/shot_1.jpg"]
)
def test_instant_ngp_files_and_their_many_paths(views, tmp_path, name):
    found = load_cameras(write(tmp_path / "transforms.json", instant_ngp([name])), views).cameras
    assert found.registered.tolist() == [False, True, False, False]
    assert found.K[1].tolist() == [[150, 0, 81], [0, 151, 61], [0, 0, 1]]
    assert found.distortion[1].tolist() == [0.03, -0.01, 1e-3, -2e-3]
    # OpenGL: y up is world z, looking along -z is world +y
    assert found.T_world_cam[1, :3, 2].tolist() == [0, 1, 0]
    assert found.T_world_cam[1, :3, 1].tolist() == [0, 0, -1]
    assert found.centers_world[1].tolist() == [2, 3, 4]
    assert torch.equal(OPENGL_TO_OPENCV @ OPENGL_TO_OPENCV, torch.eye(4, dtype=torch.float64))


def test_angle_of_view_and_intrinsics_per_frame(views, tmp_path):
    data = instant_ngp(["shot_0.png", "shot_1.png"])
    for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
        del data[key]
    data["frames"][1] |= {"fl_x": 99.0, "cx": 70.0}
    found = load_cameras(write(tmp_path / "t.json", data), views).cameras
    assert found.K[0, 0, 0].item() == pytest.approx(80 / math.tan(0.45))
    assert found.K[0, :2, 2].tolist() == [80, 60]
    assert (found.K[1, 0, 0].item(), found.K[1, 1, 1].item(), found.K[1, 0, 2].item()) == (99.0, 99.0, 70.0)


def spoiled(**changes):
    return instant_ngp(["shot_0.png"], **changes)


SCALED_POSE = (np.diag([2.0, 2.0, 2.0, 1.0])).tolist()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "no list of frames"),
        ({"frames": 3}, "no list of frames"),
        ({"frames": [1]}, "must be an object"),
        ({"frames": []}, "holds no cameras"),
        (instant_ngp(["gone.png", "shot_0.png", "away.jpg"]), r"2 photos .* gone\.png, away\.jpg"),
        (instant_ngp(["shot_0.png", "x/shot_0.png"]), "several cameras for shot_0.png"),
        (spoiled(camera_model="OPENCV_FISHEYE"), "OPENCV_FISHEYE"),
        (spoiled(k3=0.1), "k3"),
        (spoiled(fl_x=None, fl_y=None, camera_angle_x=None), "focal length"),
        (spoiled(fl_x=-3.0), "focal length"),
        (spoiled(fl_x="wide"), "cannot be understood"),
        (spoiled(w=120.0, h=160.0), "120x160"),
        (spoiled(frames=[{"file_path": "shot_0.png", "transform_matrix": [[1, 0], [0, 1]]}]), "transform_matrix"),
        (spoiled(frames=[{"file_path": "shot_0.png", "transform_matrix": SCALED_POSE}]), "not a rotation"),
        (spoiled(frames=[{"transform_matrix": SCALED_POSE}]), "'file_path' is missing"),
        ({"format": 9, "frames": [{"name": "shot_0.png"}]}, "format 9"),
        ({"format": 1, "frames": [{"name": "shot_0.png"}]}, "'K' is missing"),
    ],
)
def test_wrong_files_say_what_is_wrong(views, tmp_path, data, words):
    with pytest.raises(UserError, match=words) as caught:
        load_cameras(write(tmp_path / "transforms.json", data), views)
    assert caught.value.remedy


def test_missing_files_and_empty_folders_are_named(views, tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        load_cameras(tmp_path / "gone.json", views)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no COLMAP model"):
        load_cameras(tmp_path / "empty", views)


def test_a_colmap_model_that_names_absent_photos(views, tmp_path):
    colmap_text(tmp_path / "model", "PINHOLE 160 120 150 151 81 61", names=("shot_0.png", "elsewhere.png"))
    with pytest.raises(UserError, match=r"elsewhere\.png"):
        load_cameras(tmp_path / "model", views)


def test_a_turned_photo_is_explained(views, tmp_path):
    """COLMAP ignores EXIF orientation; its cameras then describe another picture."""
    colmap_text(tmp_path / "model", "PINHOLE 160 120 150 151 81 61", names=("shot_3.png",))
    with pytest.raises(UserError, match="EXIF orientation"):
        load_cameras(tmp_path / "model", views)


def test_the_public_fox_file_is_read(dataset, tmp_path):
    """Reference poses of a real capture, rewritten as instant-ngp would: kept exactly."""
    folder = dataset("fox")
    frames = json.loads((folder / "poses.json").read_text())["frames"]
    views = open_photos(folder / "images", long_side=640).views
    made = {"frames": []}
    for frame in frames:
        T = torch.tensor(frame["c2w"], dtype=torch.float64) @ OPENGL_TO_OPENCV
        lens = {
            "fl_x": frame["fx"],
            "fl_y": frame["fy"],
            "cx": frame["cx"],
            "cy": frame["cy"],
            "w": frame["width"],
            "h": frame["height"],
        }
        lens |= {key: frame.get(key, 0.0) for key in ("k1", "k2", "p1", "p2")}
        made["frames"].append({"file_path": f"images/{frame['file'].split('/')[-1]}", "transform_matrix": T.tolist(), **lens})
    found = load_cameras(write(tmp_path / "transforms.json", made), views).cameras
    assert found.registered_mask.all()
    by_name = {frame["file"].split("/")[-1]: frame for frame in frames}
    wanted = torch.tensor([by_name[name]["c2w"] for name in views.names], dtype=torch.float64)
    assert (found.T_world_cam[:, :3] - wanted[:, :3]).abs().max() < EXACT
