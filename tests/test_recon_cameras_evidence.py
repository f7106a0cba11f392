"""Evidence, diagnosis and scores of cameras, on matches whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sfm_scene import look_at

from recon.cameras.diagnosis import diagnose, only_turned, refusal, too_few_placed
from recon.cameras.evidence import judge
from recon.cameras.matches import Matches
from recon.cameras.scoring import MISS_DEG, area_under_recall, evenly_spread, pair_errors_deg, score_cameras
from recon.records import Cameras, View, Views

SIDE, FOCAL_PX = 1000, 900.0
MATCHED_EXACTLY = 1e-9
"""Tolerance of angles and shares that involve no noise."""


def cameras_at(T_world_cam: np.ndarray) -> Cameras:
    count = len(T_world_cam)
    K = torch.tensor([[FOCAL_PX, 0, SIDE / 2], [0, FOCAL_PX, SIDE / 2], [0, 0, 1.0]], dtype=torch.float64)
    return Cameras(
        T_world_cam=torch.tensor(np.asarray(T_world_cam, float)),
        K=K.repeat(count, 1, 1),
        width=SIDE,
        height=SIDE,
        distortion=torch.zeros(count, 4, dtype=torch.float64),
        registered=torch.ones(count, dtype=torch.bool),
    )


def matches_between(cameras: Cameras, points: np.ndarray, pairs: list[tuple[int, int]], noise_px: float = 0.3) -> Matches:
    """Project points into pairs of cameras, with noise."""
    generator = np.random.default_rng(1)
    T_cam_world = cameras.T_cam_world.numpy()
    px = []
    for T, K in zip(T_cam_world, cameras.K.numpy(), strict=True):
        local = (points @ T[:3, :3].T + T[:3, 3]) @ K.T
        px.append(local[:, :2] / local[:, 2:] + generator.normal(0, noise_px, (len(points), 2)))
    rows = [np.concatenate([px[i], px[j]], axis=1) for i, j in pairs]
    return Matches(pairs=np.array(pairs), counts=np.full(len(pairs), len(points)), px=np.concatenate(rows))


def photos(count: int) -> Views:
    def decode(width: int, height: int) -> np.ndarray:
        raise AssertionError("pixels are not needed")

    size = {"original_width": SIDE, "original_height": SIDE, "width": SIDE, "height": SIDE}
    return Views(tuple(View(path=Path(f"{i}.jpg"), name=f"{i}.jpg", decode=decode, **size) for i in range(count)))


ALL = [(i, j) for i in range(4) for j in range(i + 1, 4)]
CLOUD = np.random.default_rng(0).uniform([-1.5, -1.5, 4], [1.5, 1.5, 7], (200, 3))


@pytest.fixture
def arc() -> Cameras:
    return cameras_at(np.stack([look_at(np.array([x, 0.1 * x, 0.0]), np.array([0, 0, 5.0])) for x in (-1.2, -0.4, 0.4, 1.2)]))


def test_right_cameras_are_strong(arc):
    evidence = judge(arc, matches_between(arc, CLOUD, ALL))
    assert evidence.weaknesses() == {}
    assert evidence.is_final
    assert evidence.agreement > 0.99
    assert evidence.score > 0.98
    assert list(evidence.matched) == [600] * 4


def test_evidence_does_not_depend_on_the_world(arc):
    """Moving, turning and scaling the world leaves the evidence."""
    matches = matches_between(arc, CLOUD, ALL)
    turn = torch.from_numpy(look_at(np.array([3.0, -2.0, 1.0]), np.array([0.5, 0.2, 9.0])))
    T = arc.T_world_cam.clone()
    T[:, :3, 3] *= 7.0
    moved = replace(arc, T_world_cam=turn @ T)
    before, after = judge(arc, matches), judge(moved, matches)
    assert (before.explained == after.explained).all()
    assert abs(before.angle_deg - after.angle_deg) < 1e-6


def test_a_wrong_camera_counts_against_an_attempt(arc):
    """A photo placed wrongly lowers the score below that of leaving the photo out."""
    matches = matches_between(arc, CLOUD, ALL)
    T = arc.T_world_cam.clone()
    T[3] = torch.from_numpy(look_at(np.array([-3.0, 2.0, 1.0]), np.array([1.5, -0.5, 5.0])))
    wrong = judge(replace(arc, T_world_cam=T), matches)
    left_out = judge(replace(arc, registered=torch.tensor([True, True, True, False])), matches)
    assert wrong.share[3] < 0.35 < 0.6 < wrong.share[0]
    assert wrong.score < left_out.score < judge(arc, matches).score
    assert left_out.weaknesses() == {"placed": "1 of 4 photos not placed"}
    assert "contradict" in wrong.weaknesses()["agreement"]
    assert not wrong.is_final


def test_points_behind_a_camera_are_not_explained(arc):
    """Turning the baseline round keeps every epipolar line, but puts the points behind the cameras."""
    pair = arc.select([0, 3])
    matches = matches_between(pair, CLOUD, [(0, 1)])
    T = pair.T_world_cam.clone()
    T[1, :3, 3] = 2 * T[0, :3, 3] - T[1, :3, 3]
    assert judge(pair, matches).agreement > 0.99
    assert judge(replace(pair, T_world_cam=T), matches).agreement < 0.01


def test_turning_on_the_spot_is_said_in_words():
    T = np.stack([look_at(np.zeros(3), np.array([x, 0, 5.0])) for x in (-1.0, -0.3, 0.4, 1.0)])
    turning = cameras_at(T)
    matches = matches_between(turning, CLOUD, ALL)
    assert "turned on the spot" in refusal(matches, photos(4), 6).reason
    assert only_turned(matches, photos(4))
    assert not only_turned(matches, photos(5))  # a photo that nothing ties to the others
    evidence = judge(turning, matches)
    assert set(evidence.weaknesses()) == {"angle"}
    found = diagnose(matches, photos(4), [(0, 1, 2, 3)], evidence, [True] * 4)
    assert "turned on the spot" in str(found[0])
    assert "step sideways" in found[0].remedy


def test_a_flat_scene_is_not_called_a_turn(arc):
    wall = CLOUD.copy()
    wall[:, 2] = 5.0
    reason = refusal(matches_between(arc, wall, ALL), photos(4), 6).reason
    assert "flat surface" in reason
    assert "turned on the spot" not in reason


def test_a_scene_with_depth_is_neither(arc):
    matches = matches_between(arc, CLOUD, ALL)
    assert not only_turned(matches, photos(4))
    assert diagnose(matches, photos(4), [(0, 1, 2, 3)], judge(arc, matches), [True] * 4) == []


def test_strangers_gaps_and_groups_are_named(arc):
    """Photo 3 shares nothing; then it shares too little; then two groups of three share nothing."""
    views = photos(6)
    near = matches_between(arc.select([0, 1, 2]), CLOUD, [(0, 1), (0, 2), (1, 2)])
    found = diagnose(near, views.select(range(4)), [(0, 1, 2)], judge(arc, near), [True, True, True, False])
    assert [str(one) for one in found if "1 of 4 photos overlaps with no other: 3.jpg" in one.reason]
    weak = Matches.join([near, matches_between(arc, CLOUD[:20], [(2, 3)])])
    found = diagnose(weak, views.select(range(4)), [(0, 1, 2)], judge(arc, weak), [True, True, True, False])
    assert ["overlap too little" in one.reason for one in found] == [True]
    twice = Matches.join([near, replace(near, pairs=near.pairs + 3)])
    both = cameras_at(np.concatenate([arc.T_world_cam[:3], arc.T_world_cam[:3]]))
    found = diagnose(twice, views, [(0, 1, 2), (3, 4, 5)], judge(both, twice), [True] * 3 + [False] * 3)
    assert len(found) == 1
    assert "2 groups" in found[0].reason
    assert "0.jpg, 1.jpg, 2.jpg); 3 photos (3.jpg" in found[0].reason
    together = diagnose(twice, views, [(0, 1, 2, 3, 4)], judge(both, twice), [True] * 5 + [False])
    assert not any("groups" in one.reason for one in together)  # one model holds photos of both
    assert any("1 of 6 photos overlap" in one.reason for one in together)


def test_scores_do_not_depend_on_the_world(arc):
    turn = torch.from_numpy(look_at(np.array([3.0, -2.0, 1.0]), np.array([0.5, 0.2, 9.0])))
    T = arc.T_world_cam.clone()
    T[:, :3, 3] *= 0.2
    score = score_cameras(replace(arc, T_world_cam=turn @ T), arc)
    assert min(score.auc5, score.auc10, score.auc30) > 1 - 1e-6
    assert score.ate < 1e-6
    assert score.focal_error == 0
    assert (score.photos, score.placed) == (4, 4)


def test_scores_computed_by_hand():
    """Two cameras side by side; the second is turned by 3 degrees, about its own centre: one pair, an error of 3 degrees."""
    T = np.tile(np.eye(4), (2, 1, 1))
    T[1, 0, 3] = 1.0
    reference = cameras_at(T)
    angle = np.deg2rad(3.0)
    T[1, :3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    found = cameras_at(T)
    found = replace(found, K=found.K * torch.tensor([1.1, 1.1, 1.0])[:, None].double())
    assert abs(float(pair_errors_deg(found, reference)[0]) - 3.0) < MATCHED_EXACTLY
    score = score_cameras(found, reference)
    assert score.auc5 == pytest.approx(0.4)
    assert score.auc10 == pytest.approx(0.7)
    assert score.auc30 == pytest.approx(0.9)
    assert score.focal_error == pytest.approx(0.1)
    assert score.ate is None


def test_a_direction_counts_with_its_sign_and_a_lost_photo_misses(arc):
    reference = arc.select([0, 1])
    T = reference.T_world_cam.clone()
    T[1, :3, 3] = 2 * T[0, :3, 3] - T[1, :3, 3]
    assert float(pair_errors_deg(replace(reference, T_world_cam=T), reference)[0]) == pytest.approx(180.0)
    lost = replace(arc, registered=torch.tensor([True, True, True, False]))
    errors = pair_errors_deg(lost, arc)
    assert sorted(errors.tolist())[-3:] == [MISS_DEG] * 3
    assert score_cameras(lost, arc).auc30 == pytest.approx(0.5)
    unknown = replace(arc, registered=torch.tensor([True, True, True, False]))
    assert len(pair_errors_deg(arc, unknown)) == 3


def test_area_under_recall_is_the_integral():
    """Against the plain sum over a fine grid of thresholds."""
    errors = torch.tensor([0.3, 1.2, 4.0, 4.9, 7.0, 180.0], dtype=torch.float64)
    grid = torch.linspace(0, 5, 20001, dtype=torch.float64)
    recall = (errors[None] <= grid[:, None]).double().mean(1)
    assert area_under_recall(errors, 5.0) == pytest.approx(float(recall.mean()), abs=1e-3)


def test_even_subsets():
    assert evenly_spread(list(range(10)), 3) == [0, 4, 9]
    assert evenly_spread([2, 5, 7], 6) == [2, 5, 7]
    assert len(set(evenly_spread(list(range(30)), 12))) == 12


def test_photos_that_scoring_took_are_named_where_they_would_be_enough():
    views = photos(4)
    views = Views(tuple(replace(view, holdout=i == 2) for i, view in enumerate(views)))
    taken = too_few_placed(views, [True, False, True, False])
    assert taken.reason.startswith("Cameras were found for 1 of the 3 input photos")
    assert views.names[2] in taken.reason
    assert "--holdout" in taken.remedy
    alone = too_few_placed(views, [False, False, True, False])
    assert alone.reason.startswith("Cameras were found for 0 of the 3 input photos")
    assert "--holdout" not in alone.remedy
