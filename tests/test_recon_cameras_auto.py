"""Finding cameras, best of what works: every mapper and detector, masks, known lenses, and sources from elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from sfm_scene import DISTORTION, FOCAL_PX, HEIGHT, WIDTH, Truth, write_room_photos

from recon.alignment import sim3_align
from recon.cameras import auto
from recon.cameras.auto import CameraCandidate, Tried, Workbench, find_cameras
from recon.cameras.evidence import Evidence
from recon.cameras.features import Features, find_all_features, find_features
from recon.cameras.matches import Matches, Tell
from recon.cameras.recipes import AFFINE, GUIDED, LADDER, PLAIN, QUICK, SIFT, STRICT, MatchKind, Recipe, with_matches_of
from recon.cameras.result import SfmResult, blank_cameras
from recon.cameras.sfm import Attempt
from recon.errors import CannotReconstruct, UserError
from recon.photos import open_photos
from recon.progress import Progress
from recon.records import Views

import helpers

CENTER_TOLERANCE = 0.02
"""Error of camera centres over the size of their arc: features of 320 px photos are good to about 0.3 px."""


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Truth:
    return write_room_photos(tmp_path_factory.mktemp("room"))


@pytest.fixture(scope="module")
def views(room) -> Views:
    return open_photos(room.paths, long_side=320).views


def centre_error(result: SfmResult, room: Truth) -> float:
    """Largest error of a camera centre over the size of the arc."""
    truth = torch.from_numpy(room.T_world_cam[:, :3, 3])
    ours = result.cameras.centers_world
    away = (sim3_align(ours, truth).apply(ours) - truth).norm(dim=1)
    return float(away.max() / (truth - truth.mean(0)).norm(dim=1).mean())


def test_easy_photos_take_one_attempt(room, views):
    result = find_cameras(views, progress=Progress(), seed=0)
    assert [one["tried"] for one in result.attempts] == [LADDER[0].name]
    assert result.attempts[0]["chosen"]
    assert result.attempts[0]["weak"] == []
    assert result.warnings == ()
    assert centre_error(result, room) < CENTER_TOLERANCE


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(name="global", matching=PLAIN, mapper="global"),
        Recipe(name="guided", matching=replace(GUIDED, features=replace(SIFT, most=1500))),
        Recipe(name="focal", matching=PLAIN, focal_ratio=2.0),
        Recipe(name="own lenses", matching=replace(PLAIN, own_lenses=True)),
        Recipe(name="affine", matching=MatchKind(features=replace(AFFINE, side=320, most=800), exhaustive_up_to=9, guided=False)),
    ],
    ids=lambda recipe: recipe.name,
)
def test_every_kind_of_recipe_places_the_photos(room, views, recipe):
    result = find_cameras(views, progress=Progress(), seed=0, ladder=[recipe])
    assert result.cameras.registered_mask.all()
    assert centre_error(result, room) < 2 * CENTER_TOLERANCE
    assert result.attempts[0]["agreement"] > 0.9


@pytest.mark.parametrize("mapper", ["incremental", "global"])
def test_a_known_lens_is_kept_exactly(room, views, mapper):
    lens = (FOCAL_PX, FOCAL_PX, WIDTH / 2, HEIGHT / 2, *DISTORTION.tolist())
    known = Views(tuple(replace(view, intrinsics=lens, focal_px=FOCAL_PX, camera_id="known") for view in views))
    result = find_cameras(known, progress=Progress(), seed=0, ladder=[Recipe(name="this", matching=PLAIN, mapper=mapper)])
    assert (result.cameras.K - torch.from_numpy(room.K)).abs().max() < 1e-9
    assert (result.cameras.distortion - torch.from_numpy(DISTORTION)).abs().max() < 1e-12
    assert centre_error(result, room) < CENTER_TOLERANCE


@pytest.mark.parametrize("wrong", [0.55, 1.8])
def test_a_focal_length_that_exif_tells_wrong_is_corrected(room, views, wrong):
    told = Views(tuple(replace(view, focal_px=wrong * FOCAL_PX) for view in views))
    result = find_cameras(told, progress=Progress(), seed=0)
    assert bool(result.cameras.registered_mask.all())
    assert result.cameras.K[:, 0, 0].tolist() == pytest.approx([FOCAL_PX] * len(views), rel=0.03)
    assert centre_error(result, room) < 0.03


def test_masked_pixels_give_no_features(views):
    def left_half(width: int, height: int) -> np.ndarray:
        return np.tile(np.arange(width) < width // 2, (height, 1))

    everywhere = find_features(views[0], SIFT)
    masked = find_features(replace(views[0], read_mask=left_half), SIFT)
    assert (everywhere.keypoints_px[:, 0] > WIDTH / 2).any()
    assert len(masked.keypoints_px) > 50
    assert masked.keypoints_px[:, 0].max() < WIDTH / 2


def test_affine_features_carry_a_shape(views, tmp_path):
    kind = replace(AFFINE, side=320, most=300)
    heard: list[float] = []
    found = find_all_features(views[:2], kind, tmp_path, Progress(), lambda done, _: heard.append(done))
    assert all(isinstance(one, Features) and one.keypoints_px.shape[1] == 6 for one in found)
    assert all(50 < len(one.descriptors) <= 2 * kind.most for one in found)
    assert all((one.scales_px > 0.5).all() for one in found)
    assert heard == sorted(heard)
    assert heard[-1] == 1.0


def test_matches_of_another_source_are_verified_and_used(room, views):
    """A matcher that knows the truth, with a tenth of its matches wrong: SIFT is not asked."""
    generator = np.random.default_rng(0)
    points = generator.uniform([-2, -2, 3], [2, 1.5, 6], (400, 3))
    K = torch.from_numpy(room.K)
    T_cam_world = np.linalg.inv(room.T_world_cam)
    px = []
    for T in T_cam_world:
        flat = points @ T[:3, :3].T + T[:3, 3]
        flat = flat[:, :2] / flat[:, 2:]
        r2 = (flat**2).sum(1, keepdims=True)
        px.append(flat * (1 + DISTORTION[0] * r2 + DISTORTION[1] * r2**2) * K[0, 0].item() + [K[0, 2].item(), K[1, 2].item()])
    inside = [((p > 1) & (p < [WIDTH - 1, HEIGHT - 1])).all(1) for p in px]

    def match(photos: Views, progress: Progress, tell: Tell) -> Matches:
        tell(0.5, "matching")
        pairs = [(i, j) for i in range(6) for j in range(i + 1, 6)]
        found = []
        for i, j in pairs:
            rows = np.concatenate([px[i], px[j]], axis=1)[inside[i] & inside[j]]
            wrong = generator.random(len(rows)) < 0.1
            rows[wrong, 2:] = generator.uniform(0, [WIDTH, HEIGHT], (int(wrong.sum()), 2))
            found.append(rows)
        return Matches(pairs=np.array(pairs), counts=np.array([len(rows) for rows in found]), px=np.concatenate(found))

    ladder = with_matches_of(match)
    assert ladder[: len(QUICK)] == QUICK
    assert {recipe.name for recipe in ladder if recipe.matching.matcher is None} == {recipe.name for recipe in LADDER}
    learned = [recipe for recipe in ladder if recipe.matching.matcher is match]
    assert ladder.index(learned[-1]) < ladder.index(next(recipe for recipe in ladder if recipe.matching.features.enlarge))
    result = find_cameras(views, progress=Progress(), seed=0, ladder=learned)
    assert result.attempts[0]["tried"] == learned[0].name
    assert centre_error(result, room) < CENTER_TOLERANCE
    assert result.cameras.registered_mask.all()


def test_a_matcher_that_finds_nothing_does_not_end_the_search(views):
    """Photos that plain SIFT ties together in part only are given to richer features, whatever a network says of them."""

    def nothing(photos: Views, progress: Progress, tell: Tell) -> Matches:
        return Matches.join([])

    learned = MatchKind(features=SIFT, exhaustive_up_to=16, guided=False, matcher=nothing)
    bench = Workbench(views=views, folder=Path(), progress=Progress(), seed=0)
    some = Matches(pairs=np.array([[0, 1], [1, 2]]), counts=np.array([20, 20]), px=np.zeros((40, 4)))
    bench.matches = {PLAIN: some}
    counts = np.array([200, 200, 200, 0, 0, 0])
    three = Evidence(placed=3, explained=counts, matched=counts, angle_deg=20.0, focal_ratio=(1.0, 1.0), error_share=1e-4)
    nobody = Attempt(result=None, models=((0, 1, 2),), image_side=320.0)
    best = Tried(name="plain", attempt=nobody, evidence=three, seconds=1.0)
    assert not auto.is_enough(bench, best)
    bench.matches[learned] = nothing(views, Progress(), lambda *_: None)
    assert not auto.is_enough(bench, best)
    bench.matches[GUIDED] = some
    assert auto.is_enough(bench, best)


def test_cameras_from_elsewhere_win_only_by_evidence(room, views, monkeypatch):
    """With a recipe that finds matches but dares to place nothing, right cameras from elsewhere win and wrong ones do not.

    Bundle adjustment, which makes even the wrong ones right here, is left out.
    """
    monkeypatch.setattr(auto, "refine_predicted", lambda *_: None)
    truth = blank_cameras(views)
    truth = replace(
        truth,
        T_world_cam=torch.from_numpy(room.T_world_cam),
        K=torch.from_numpy(room.K).repeat(6, 1, 1),
        distortion=torch.from_numpy(DISTORTION).repeat(6, 1),
        registered=torch.ones(6, dtype=torch.bool),
    )

    def as_result(cameras) -> SfmResult:
        return SfmResult(
            cameras=cameras,
            points_world=torch.zeros(0, 3).double(),
            points_rgb=torch.zeros(0, 3, dtype=torch.uint8),
            visibility=torch.zeros(6, 0, dtype=torch.bool),
            reprojection_error_px=0.0,
            per_view_points=torch.zeros(6, dtype=torch.long),
        )

    def refuse(photos: Views, progress: Progress) -> SfmResult:
        raise UserError("This network is not on this machine.", "Fetch it.")

    timid = Recipe(name="timid", matching=PLAIN, thresholds=replace(STRICT, init_min_num_inliers=10**6))
    turned = replace(truth, T_world_cam=truth.T_world_cam[[3, 4, 5, 0, 1, 2]])
    right = CameraCandidate(name="right", find=lambda *_: as_result(truth))
    wrong = CameraCandidate(name="wrong", find=lambda *_: as_result(turned))
    absent = CameraCandidate(name="absent", find=refuse)
    result = find_cameras(views, progress=Progress(), seed=0, ladder=[timid], others=[wrong, right, absent])
    told = {one["tried"]: one for one in result.attempts}
    assert told["right"]["chosen"]
    assert told["right"]["agreement"] > 0.9 > 0.5 > told["wrong"]["agreement"]
    assert "not on this machine" in told["absent"]["note"]
    assert torch.equal(result.cameras.T_world_cam, truth.T_world_cam)


def test_two_rooms_are_told_apart(room, tmp_path):
    """Photos of two places: the larger group is used, and the words say so."""
    other = write_room_photos(tmp_path / "other", 4, seed=11)
    for path in other.paths:
        path.rename(path.with_name(f"other_{path.name}"))
    paths = [*room.paths, *sorted((tmp_path / "other").glob("*.png"))]
    views = open_photos(paths, long_side=320).views
    result = find_cameras(views, progress=Progress(), seed=0, ladder=LADDER[:2])
    names = [name for name, ok in zip(views.names, result.cameras.registered_mask.tolist(), strict=True) if ok]
    assert names == [f"room_{i}.png" for i in range(6)]
    assert "2 groups" in result.warnings[0]
    assert "6 photos" in result.warnings[0]
    assert "4 photos (other_room_0.png" in result.warnings[0]


def test_refusal_says_how_many_pairs_were_compared(tmp_path):
    views = open_photos(helpers.write_noise_photos(tmp_path, 3, width=96, height=64), long_side=96).views
    with pytest.raises(CannotReconstruct, match="3 pairs compared, none agreed") as caught:
        find_cameras(views, progress=Progress(), seed=0, ladder=LADDER[:3])
    assert "overlap" in caught.value.remedy


def test_progress_never_goes_back(views):
    seen: list[float] = []
    progress = Progress(lambda event: seen.append(event.fraction))
    ladder = [Recipe(name="none", matching=replace(PLAIN, features=replace(SIFT, most=10))), LADDER[0]]
    find_cameras(views, progress=progress, seed=0, ladder=ladder)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_photos_share_a_camera_by_body_and_size(views, tmp_path: Path):
    bench = Workbench(views=views, folder=tmp_path, progress=Progress(), seed=0)
    assert set(bench.camera_numbers(own_lenses=False)) == {0}
    assert list(bench.camera_numbers(own_lenses=True)) == list(range(6))
    mixed = Views((*views.items[:3], *(replace(view, camera_id="phone") for view in views.items[3:])))
    assert len(set(replace(bench, views=mixed).camera_numbers(own_lenses=False))) == 2


def test_photos_of_many_lenses_are_placed_from_several_starts(views, tmp_path, monkeypatch):
    """The start that explains most is taken; photos of one lens are placed once."""
    from recon.cameras.child import mapping

    placed = []
    before = mapping.map_once

    def map_once(path, choice, seed, tell):
        placed.append(before(path, choice, seed, tell))
        if seed == 0:  # a start that went wrong: half of what it saw lies elsewhere
            points = list(placed[-1][0].points3D.values())
            for point in points[::2]:
                point.xyz = point.xyz + 5.0
        return placed[-1]

    monkeypatch.setattr(mapping, "map_once", map_once)
    monkeypatch.setattr(mapping, "say", lambda **news: None)
    monkeypatch.setattr(mapping, "solve_robustly", lambda model, free: None)
    bench = Workbench(views=views, folder=tmp_path, progress=Progress(), seed=0)
    for own_lenses, starts in ((False, 1), (True, mapping.STARTS)):
        placed.clear()
        recipe = Recipe(name="any", matching=replace(PLAIN, own_lenses=own_lenses))
        bench.gather(recipe.matching, lambda done, words: None)
        path = tmp_path / bench.database(recipe.matching)
        assert mapping.has_many_lenses(path) == own_lenses
        models = mapping.map_incrementally(path, recipe.choice(), 0, len(views))
        assert len(placed) == starts
        best = max(range(starts), key=lambda number: mapping.explained(placed[number][0]))
        assert models is placed[best]
        assert starts == 1 or best > 0


def test_points_of_two_photos_stay_only_where_photos_need_them(views, tmp_path):
    from recon.cameras.child import mapping

    for photos, needed in ((6, False), (2, True)):
        folder = tmp_path / str(photos)
        folder.mkdir()
        bench = Workbench(views=views[:photos], folder=folder, progress=Progress(), seed=0)
        bench.gather(PLAIN, lambda done, words: None)
        recipe = Recipe(name="any", matching=PLAIN)
        model = mapping.map_once(folder / bench.database(PLAIN), recipe.choice(), 0, lambda placed: None)[0]
        lengths = [point.track.length() for point in model.points3D.values()]
        assert min(lengths) == 2
        mapping.leave_out_two_view_points(model)
        left = [point.track.length() for point in model.points3D.values()]
        assert min(left) == (2 if needed else 3)
        assert sum(length > 2 for length in left) == sum(length > 2 for length in lengths)


def test_what_the_cameras_contradict_is_no_part_of_the_model(views, tmp_path):
    """A wrong match in a long track: the last adjustment lets go of it, and it is not passed on."""
    from recon.cameras.child import mapping

    bench = Workbench(views=views, folder=tmp_path, progress=Progress(), seed=0)
    bench.gather(PLAIN, lambda done, words: None)
    recipe = Recipe(name="any", matching=PLAIN)
    model = mapping.map_once(tmp_path / bench.database(PLAIN), recipe.choice(), 0, lambda placed: None)[0]
    number, image = next((i, model.image(i)) for i in model.reg_image_ids())
    unseen = [k for k, p in enumerate(image.points2D) if not p.has_point3D()]
    targets = [p for p in model.point3D_ids() if number not in {e.image_id for e in model.point3D(p).track.elements}]
    shown = {p: np.asarray(image.project_point(model.point3D(p).xyz)) for p in targets}
    point, slot = next(
        (p, k)
        for p in targets
        for k in unseen
        if model.point3D(p).track.length() > 3 and np.abs(image.points2D[k].xy - shown[p]).max() > 30
    )
    model.add_observation(point, pycolmap.TrackElement(number, slot))
    mapping.adjust(model)
    assert not model.image(number).points2D[slot].has_point3D()
    assert model.point3D(point).track.length() > 2
    errors = [p.error for p in model.points3D.values()]
    assert len(errors) > 100
    assert max(errors) < mapping.FIT_PX
