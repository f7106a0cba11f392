"""Predicted cameras adjusted to matches: wrong by degrees before, right after; what is known or out of reach stays as it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sfm_scene import DISTORTION, FOCAL_PX, Truth, write_room_photos
from test_recon_cameras_auto import CENTER_TOLERANCE, centre_error

from recon.cameras import auto
from recon.cameras.auto import ADJUSTED, CameraCandidate, cameras_of, find_cameras
from recon.cameras.recipes import PLAIN, STRICT, Recipe
from recon.cameras.refined import similarity
from recon.cameras.result import SfmResult, blank_cameras
from recon.photos import open_photos
from recon.progress import Progress
from recon.records import Views

TURN_DEG, SHIFT, FOCAL_FACTOR = 1.5, 0.06, 1.08
"""How wrong the prediction is: rotation of every camera, centres over the size of the arc, focal length."""


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Truth:
    return write_room_photos(tmp_path_factory.mktemp("room"))


@pytest.fixture(scope="module")
def views(room) -> Views:
    return open_photos(room.paths, long_side=320).views


def predicted(room: Truth, views: Views, *, seed: int = 0) -> SfmResult:
    """What a network might say: about right, no distortion, in another unit and frame, and no points."""
    generator = np.random.default_rng(seed)
    cameras = blank_cameras(views)
    T = torch.from_numpy(room.T_world_cam).clone()
    size = float((T[:, :3, 3] - T[:, :3, 3].mean(0)).norm(dim=1).mean())
    for i in range(len(views)):
        axis = generator.normal(size=3)
        T[i, :3, :3] = T[i, :3, :3] @ rotation(TURN_DEG * axis / np.linalg.norm(axis))
        T[i, :3, 3] += torch.from_numpy(generator.normal(size=3)) * SHIFT * size / 3**0.5
    T[:, :3, 3] *= 0.3
    frame = torch.eye(4, dtype=torch.float64)
    frame[:3, :3] = rotation([20.0, 40.0, -30.0])
    K = torch.from_numpy(room.K).repeat(len(views), 1, 1)
    K[:, [0, 1], [0, 1]] *= FOCAL_FACTOR
    return SfmResult(
        cameras=replace(cameras, T_world_cam=frame @ T, K=K, registered=torch.ones(len(views), dtype=torch.bool)),
        points_world=torch.zeros(0, 3).double(),
        points_rgb=torch.zeros(0, 3, dtype=torch.uint8),
        visibility=torch.zeros(len(views), 0, dtype=torch.bool),
        reprojection_error_px=0.0,
        per_view_points=torch.zeros(len(views), dtype=torch.long),
    )


def rotation(degrees) -> torch.Tensor:
    """Rotation matrix of an axis times an angle."""
    x, y, z = np.deg2rad(np.asarray(degrees, float))
    return torch.linalg.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64))


def test_predicted_cameras_become_exact(room, views):
    guess = predicted(room, views)
    assert centre_error(guess, room) > 2 * CENTER_TOLERANCE
    result = cameras_of(CameraCandidate(name="guess", find=lambda *_: guess), views, progress=Progress(), seed=0)
    told = {one["tried"]: one for one in result.attempts}
    assert told[f"guess{ADJUSTED}"]["chosen"]
    assert told[f"guess{ADJUSTED}"]["score"] > told["guess"]["score"]
    assert centre_error(result, room) < CENTER_TOLERANCE
    assert float((result.cameras.K[:, 0, 0] / FOCAL_PX - 1).abs().max()) < 0.02
    assert len(result.points_world) > 100
    move = similarity(result.cameras.T_world_cam, guess.cameras.T_world_cam)  # still in the frame and at the scale of the guess
    assert abs(move.scale - 1) < 1e-6
    torch.testing.assert_close(move.R_b_a, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-6)


def test_adjusting_can_be_left_out(room, views):
    guess = predicted(room, views)
    named = CameraCandidate(name="guess", find=lambda *_: guess)
    result = cameras_of(named, views, progress=Progress(), seed=0, adjust=False)
    assert torch.equal(result.cameras.T_world_cam, guess.cameras.T_world_cam)
    assert [one["tried"] for one in result.attempts] == ["guess"]
    assert result.warnings == (), "nothing was matched, so nothing speaks against them"


def test_a_known_lens_stays_while_the_poses_move(room, views):
    lens = (FOCAL_PX, FOCAL_PX, views[0].original_width / 2, views[0].original_height / 2, *DISTORTION.tolist())
    told = Views(tuple(replace(view, intrinsics=lens) for view in views))
    guess = predicted(room, told)
    K = torch.from_numpy(room.K).repeat(len(views), 1, 1)
    guess = replace(guess, cameras=replace(guess.cameras, K=K, distortion=torch.from_numpy(DISTORTION).repeat(len(views), 1)))
    result = cameras_of(CameraCandidate(name="guess", find=lambda *_: guess), told, progress=Progress(), seed=0)
    assert result.attempts[-1]["chosen"]
    torch.testing.assert_close(result.cameras.K, K, rtol=0, atol=1e-9)
    torch.testing.assert_close(result.cameras.distortion, guess.cameras.distortion, rtol=0, atol=1e-12)
    assert centre_error(result, room) < CENTER_TOLERANCE / 2


def test_a_photo_without_matches_keeps_its_predicted_camera(room, views):
    def blank(width: int, height: int) -> np.ndarray:
        return np.full((height, width, 3), 128, np.uint8)

    photos = Views((*views[:5], replace(views[5], decode=blank)))
    guess = predicted(room, photos)
    result = cameras_of(CameraCandidate(name="guess", find=lambda *_: guess), photos, progress=Progress(), seed=0)
    assert result.attempts[-1]["chosen"]
    assert result.cameras.registered_mask.all()
    torch.testing.assert_close(result.cameras.T_world_cam[5], guess.cameras.T_world_cam[5])
    torch.testing.assert_close(result.cameras.K[5], guess.cameras.K[5])
    assert float((result.cameras.T_world_cam[:5] - guess.cameras.T_world_cam[:5]).abs().max()) > 1e-3


def test_cameras_that_matches_contradict_are_said_to_be(room, views, monkeypatch):
    monkeypatch.setattr(auto, "refine_predicted", lambda *_: None)
    guess = predicted(room, views)
    turned = replace(guess, cameras=replace(guess.cameras, T_world_cam=guess.cameras.T_world_cam[[3, 4, 5, 0, 1, 2]]))
    result = cameras_of(CameraCandidate(name="guess", find=lambda *_: turned), views, progress=Progress(), seed=0)
    assert result.cameras.registered_mask.all(), "the user named them, so they stay"
    assert "contradict" in result.warnings[0]


def test_adjusted_cameras_compete_with_structure_from_motion(room, views):
    guess = predicted(room, views)
    source = CameraCandidate(name="guess", find=lambda *_: guess)
    timid = Recipe(name="timid", matching=PLAIN, thresholds=replace(STRICT, init_min_num_inliers=10**6))
    result = find_cameras(views, progress=Progress(), seed=0, ladder=[timid], others=[source])
    assert [one["tried"] for one in result.attempts] == ["timid", "guess", f"guess{ADJUSTED}"]
    assert result.attempts[-1]["chosen"]
    assert centre_error(result, room) < CENTER_TOLERANCE


@pytest.mark.parametrize("spread", [1.0, 1.5])
def test_photos_share_a_lens_unless_the_network_says_they_were_zoomed(room, views, spread):
    guess = predicted(room, views)
    K = guess.cameras.K.clone()
    K[0, [0, 1], [0, 1]] *= spread
    guess = replace(guess, cameras=replace(guess.cameras, K=K))
    result = cameras_of(CameraCandidate(name="guess", find=lambda *_: guess), views, progress=Progress(), seed=0)
    focal = result.cameras.K[:, 0, 0]
    assert bool((focal == focal[0]).all()) == (spread == 1.0)
