"""Structure from motion on photos with known truth; its child process; COLMAP models read by pycolmap itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sfm_scene import DISTORTION, FOCAL_PX, Truth, write_room_photos

from recon.alignment import sim3_align
from recon.cameras.auto import run_sfm
from recon.cameras.camera_files import load_cameras
from recon.cameras.colmap_models import write_colmap_model
from recon.cameras.features import Features
from recon.cameras.pairs import choose_pairs
from recon.cameras.result import SfmResult
from recon.config import Holdout
from recon.errors import CannotReconstruct, UserError
from recon.photos import open_photos
from recon.progress import Cancelled, Progress

import helpers

CENTER_TOLERANCE = 0.02
"""Error of camera centres over the size of their arc: features of 320 px photos are good to about 0.3 px."""
LENS_TOLERANCE_PX = 1.0
"""Error of a ray near the picture's corner, focal length and distortion together."""
SOON_S = 1.0
"""Cancellation must be over by then."""


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Truth:
    return write_room_photos(tmp_path_factory.mktemp("room"))


@pytest.fixture(scope="module")
def solved(room) -> SfmResult:
    views = open_photos(room.paths, long_side=320, holdout=Holdout(every=3)).views
    return run_sfm(views, progress=Progress(), seed=0)


def test_cameras_of_a_known_room_are_found(room, solved):
    assert solved.cameras.registered_mask.all()
    assert solved.reprojection_error_px < 1.0
    truth = torch.from_numpy(room.T_world_cam)
    to_truth = sim3_align(solved.cameras.centers_world, truth[:, :3, 3])
    error = (to_truth.apply(solved.cameras.centers_world) - truth[:, :3, 3]).norm(dim=1)
    assert error.max() < CENTER_TOLERANCE * 3.0  # the arc is 3 units long
    turned = to_truth.R_b_a @ solved.cameras.T_world_cam[:, :3, :3]
    angle = torch.arccos((((turned.transpose(1, 2) @ truth[:, :3, :3]).diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1))
    assert torch.rad2deg(angle).max() < 0.5


def test_lens_distortion_is_estimated(solved):
    r = 0.6  # tangent of the angle to the picture's corner
    K, (k1, k2, *_) = solved.cameras.K[0], solved.cameras.distortion[0].tolist()
    found = K[0, 0] * r * (1 + k1 * r**2 + k2 * r**4)
    true = FOCAL_PX * r * (1 + DISTORTION[0] * r**2 + DISTORTION[1] * r**4)
    straight = FOCAL_PX * r
    assert abs(found - true) < LENS_TOLERANCE_PX < abs(straight - true)


def test_points_reproject_where_they_were_observed(solved):
    from recon.geometry import project, transform

    at = 0
    for view, seen in enumerate(solved.visibility):
        points_cam = transform(solved.cameras.T_cam_world[view], solved.points_world[seen])
        x, y = points_cam[:, 0] / points_cam[:, 2], points_cam[:, 1] / points_cam[:, 2]
        k1, k2, p1, p2 = solved.cameras.distortion[view]
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2**2
        bent = torch.stack([x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y), r2 * 0 + 1], 1)
        pixels, _ = project(bent, solved.cameras.K[view])
        error = (pixels - solved.observations_px[at : at + int(seen.sum())]).norm(dim=1)
        assert error.mean() < 1.0
        at += int(seen.sum())
    assert at == len(solved.observations_px)


def test_held_out_pixels_colour_no_point(room, solved, tmp_path):
    """Points that only held-out photos saw are grey; a held-out photo's colours do not matter elsewhere."""
    seen_by_inputs = solved.visibility[[1, 2, 4, 5]].any(0)
    assert seen_by_inputs.any()
    assert (solved.points_rgb[~seen_by_inputs] == 128).all()


def test_same_seed_gives_the_same_cameras(room, solved):
    views = open_photos(room.paths, long_side=320).views
    again = run_sfm(views, progress=Progress(), seed=0)
    assert torch.equal(again.cameras.T_world_cam, solved.cameras.T_world_cam)
    assert torch.equal(again.points_world, solved.points_world)


def test_photos_of_noise_name_the_reason(tmp_path):
    views = open_photos(helpers.write_noise_photos(tmp_path, 3, width=160, height=120), long_side=320).views
    with pytest.raises(CannotReconstruct, match="same place") as caught:
        run_sfm(views, progress=Progress(), seed=0)
    assert "overlap" in caught.value.remedy


def test_a_photo_of_elsewhere_is_named_not_placed(room, tmp_path):
    stranger = helpers.write_noise_photos(tmp_path, 1, width=320, height=240)
    views = open_photos([*room.paths[:4], *stranger], long_side=320).views
    found = run_sfm(views, progress=Progress(), seed=0).cameras
    lost = [name for name, ok in zip(found.names, found.registered.tolist(), strict=True) if not ok]
    assert lost == ["photo_000.jpg"]


@pytest.mark.parametrize("word", ["features", "matching", "placing"])
def test_cancelling_ends_the_child_within_a_second(room, tmp_path, word):
    views = open_photos(room.paths, long_side=320).views
    progress = Progress(lambda event: asked.append(time.perf_counter()) if event.message.startswith(word) else None)
    asked: list[float] = []

    def cancel_when_asked() -> None:
        while not asked:
            time.sleep(0.01)
        progress.cancel()

    threading.Thread(target=cancel_when_asked, daemon=True).start()
    with pytest.raises(Cancelled):
        run_sfm(views, progress=progress, seed=0, workdir=tmp_path)
    assert time.perf_counter() - asked[0] < SOON_S + 2.0  # seconds of slack for a busy machine
    assert not _children_of(os.getpid())


def _children_of(pid: int) -> list[str]:
    """Command lines of the COLMAP processes that ``pid`` started and that still run."""
    if not Path("/proc").is_dir():
        pytest.skip("needs /proc to see processes")
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError, IndexError):
            continue
        if parent == pid and "recon.cameras.child" in command:
            found.append(command)
    return found


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to see processes")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_child_outlives_a_stopped_parent(room, tmp_path, how):
    """Ctrl-C and even a killed parent leave no COLMAP behind."""
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from recon.cameras.auto import run_sfm
        from recon.photos import open_photos
        from recon.progress import Progress
        views = open_photos([Path(p) for p in sys.argv[2:]], long_side=320).views
        say = lambda event: print(event.message, flush=True)
        run_sfm(views, progress=Progress(say), seed=0, workdir=Path(sys.argv[1]))
    """)
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), *map(str, room.paths)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=helpers.REPOSITORY,
        text=True,
    )
    for line in parent.stdout:
        if line.startswith("matching"):
            break
    children = [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if (entry / "cmdline").exists() and str(tmp_path).encode() in _read(entry / "cmdline") and int(entry.name) != parent.pid
    ]
    assert children
    parent.send_signal(how)
    parent.wait(timeout=20)
    parent.stdout.close()
    deadline = time.perf_counter() + 10
    while any(_is_alive(child) for child in children) and time.perf_counter() < deadline:
        time.sleep(0.05)
    assert parent.returncode != 0
    assert not any(_is_alive(child) for child in children)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_written_model_is_read_by_pycolmap(room, solved, tmp_path):
    """Outside witness: COLMAP's own reader, in a process of its own, reprojects our points within a pixel."""
    views = open_photos(room.paths, long_side=320).views
    write_colmap_model(tmp_path / "model", solved, views)
    program = (
        "import pycolmap, json, sys; m = pycolmap.Reconstruction(sys.argv[1]); c = m.cameras[1];"
        "print(json.dumps([m.num_reg_images(), m.num_points3D(), m.compute_mean_reprojection_error(), c.model_name, c.width,"
        " m.compute_mean_track_length()]))"
    )
    told = subprocess.run([sys.executable, "-c", program, str(tmp_path / "model")], capture_output=True, text=True, check=True)
    images, points, error, model, width, length = json.loads(told.stdout.splitlines()[-1])
    assert (images, points, model, width) == (6, len(solved.points_world), "OPENCV", 320)
    assert 0 < error < 1.0
    assert length >= 2
    assert {p.name for p in (tmp_path / "model").iterdir()} >= {"cameras.bin", "images.bin", "points3D.bin"}


def test_written_model_comes_back_exactly(room, solved, tmp_path):
    views = open_photos(room.paths, long_side=160).views
    write_colmap_model(tmp_path / "model", solved, views)
    back = load_cameras(tmp_path, views) if (tmp_path / "sparse").exists() else load_cameras(tmp_path / "model", views)
    for field in ("T_world_cam", "K", "distortion"):
        assert (getattr(back.cameras, field) - getattr(solved.cameras, field)).abs().max() < 1e-9
    assert torch.equal(back.visibility, solved.visibility)
    assert torch.equal(back.points_world, solved.points_world)
    assert torch.equal(back.points_rgb, solved.points_rgb)
    assert (back.observations_px - solved.observations_px).abs().max() < 1e-9


def test_a_damaged_model_is_named(room, tmp_path):
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        (tmp_path / name).write_bytes(b"\x07\x00\x00")
    with pytest.raises(UserError, match="cannot be read"):
        load_cameras(tmp_path, open_photos(room.paths, long_side=160).views)


def test_observed_by_keeps_places_and_points_together(solved):
    used = [1, 2, 4, 5]
    kept = solved.observed_by(used)
    assert (kept.visibility.sum(0) >= 2).all()
    assert not kept.visibility[[0, 3]].any()
    assert len(kept.observations_px) == int(kept.visibility.sum())
    point = int(kept.visibility[1].nonzero()[0, 0])
    old = int((solved.points_world == kept.points_world[point]).all(1).nonzero()[0, 0])
    offset = int(solved.visibility[0].sum()) + int(solved.visibility[1, :old].sum())
    assert torch.equal(kept.observations_px[int(kept.visibility[1, :point].sum())], solved.observations_px[offset])


def _random_features(generator: np.random.Generator, parents: list[np.ndarray]) -> Features:
    """Features of a photo that shares descriptors with others."""
    descriptors = np.concatenate([*parents, generator.integers(0, 255, (60, 128)).astype(np.uint8)])
    keypoints = generator.uniform(1, 300, (len(descriptors), 4)).astype(np.float32)
    return Features(
        keypoints_px=keypoints, descriptors=descriptors, rgb=np.zeros((len(descriptors), 3), np.uint8), width=320, height=320
    )


def test_pairs_of_a_large_capture_follow_the_features():
    """Photos 0 and 39 share much and are far apart in name order; their pair must be chosen, and few others."""
    generator = np.random.default_rng(0)
    shared = generator.integers(0, 255, (80, 128)).astype(np.uint8)
    features = [_random_features(generator, [shared] if i in (0, 39) else []) for i in range(40)]
    pairs = choose_pairs(features, exhaustive_up_to=16)
    assert (0, 39) in pairs
    assert all((i, i + 1) in pairs for i in range(39))
    assert len(pairs) < 40 * 13 < 40 * 39 / 2
    assert len(choose_pairs(features[:16], exhaustive_up_to=16)) == 16 * 15 // 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fox", "fountain_p11", "llff_fern", "monstree", "redkitchen"])
def test_real_photos_are_all_placed(dataset, name):
    folder = dataset(name)
    views = open_photos(folder / "images", long_side=640).views
    solved = run_sfm(views, progress=Progress(), seed=0)
    assert solved.cameras.registered_mask.all(), solved.attempts
    assert solved.reprojection_error_px < 1.0
    frames = {frame["file"].split("/")[-1]: frame for frame in json.loads((folder / "poses.json").read_text())["frames"]}
    rows = [i for i, view in enumerate(views) if view.name in frames]
    truth = torch.tensor([frames[views[i].name]["c2w"] for i in rows], dtype=torch.float64)[:, :3, 3]
    ours = solved.cameras.centers_world[rows]
    error = (sim3_align(ours, truth).apply(ours) - truth).norm(dim=1) / (truth - truth.mean(0)).norm(dim=1).mean()
    assert error.median() < 0.02
