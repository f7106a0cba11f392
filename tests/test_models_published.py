"""Published networks behind our doors: sizes, units, groups, memory plans. A tiny network of the family stands in."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import fixture_folder, image_levels
from tiny_networks import TINY, posed_plane, tiny_network

from models.published.canvas import lay_out, network_size, resize_photo
from models.published.doors import PublishedPredictor
from models.published.layers.camera_heads import invert_rigid, matrix_to_quaternion, nearest_rotation, quaternion_to_matrix, rigid
from models.published.layers.dense_head import uv_embedding
from models.published.networks.da3 import choose_reference
from models.published.networks.focal import fit_focal
from models.published.networks.geometry import Geometry
from models.published.planner import FREE_SHARE, GIB, make_plan, needed_bytes, weight_bytes
from models.published.scaling import match_unit
from models.published.stitching import fit_similarity, join, windows
from models.published.zoo import NETWORKS, find_network
from recon.errors import UserError
from recon.geometry import backproject, transform
from recon.progress import Progress
from recon.records import Gaussians, View, Views

ROOMY = 64 * GIB
GREY_LEVELS = 2.0
"""Largest difference allowed in a resized photo: rounding of two steps, and OpenCV versions."""


# Sizes and the canvas


def preparation_cases() -> list[str]:
    sizes = ("640x480", "400x300", "1000x667", "300x533", "504x378", "504x376", "720x1280", "512x512")
    return [f"{size}/upper_bound_resize" for size in sizes]


@pytest.mark.parametrize("case", preparation_cases())
def test_preparation_matches_official_numbers(case: str) -> None:
    folder = fixture_folder("da3-small")
    wanted = json.loads((folder / "preproc_info.json").read_text())["cases"][case]
    width, height = (int(side) for side in case.split("/")[0].split("x"))
    size = network_size(width, height, 504)
    assert list(size) == wanted["out_wh"]
    stored = np.load(folder / "preproc.npz")
    image = 2 * image_levels(1, height, width, "preproc")[0].transpose(1, 2, 0)
    resized = 255 * resize_photo(torch.from_numpy(image).float() / 255, *size, long_side=504).permute(2, 0, 1)
    assert np.abs(resized.numpy()[:, ::16, ::16] - stored[case]).max() <= GREY_LEVELS
    assert np.abs(resized.numpy()[:, :8, :8] - stored[f"{case}/corner"]).max() <= GREY_LEVELS
    assert float(resized.sum()) == pytest.approx(wanted["pixel_sum"], rel=1e-3)


def test_photos_of_one_shape_fill_the_canvas_and_others_are_centred() -> None:
    same = lay_out([(640, 480)] * 3, 504)
    assert (same.width, same.height) == (504, 378)
    assert same.covered(1).all()
    mixed = lay_out([(640, 480), (480, 640)], 504)
    assert (mixed.width, mixed.height) == (504, 504)
    assert mixed.offset(0) == (0, 63)
    image = torch.rand(378, 504, 3)
    placed = mixed.place(image, 0)
    assert torch.equal(mixed.cut(placed[0], 0), image[..., 0])
    assert int(mixed.covered(0).sum()) == 504 * 378
    K = torch.tensor([[400.0, 0, 252], [0, 400, 189], [0, 0, 1]])
    there = mixed.shift_intrinsics(K, 0, onto=True)
    assert there[1, 2] == 252
    assert torch.equal(mixed.shift_intrinsics(there, 0, onto=False), K)


# Small pieces


def test_quaternions_and_rotations_undo_each_other() -> None:
    q = torch.nn.functional.normalize(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    q = torch.where(q[:, 3:] < 0, -q, q)
    torch.testing.assert_close(matrix_to_quaternion(quaternion_to_matrix(3.0 * q)), q, rtol=0, atol=1e-6)
    T = rigid(quaternion_to_matrix(q), torch.randn(50, 3))
    torch.testing.assert_close(invert_rigid(T) @ T, torch.eye(4).expand(50, 4, 4), rtol=0, atol=1e-5)


def test_nearest_rotation_is_a_rotation_and_keeps_rotations() -> None:
    M = torch.randn(40, 3, 3, generator=torch.Generator().manual_seed(3))
    R = nearest_rotation(M)
    torch.testing.assert_close(R @ R.transpose(1, 2), torch.eye(3).expand(40, 3, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(40))
    torch.testing.assert_close(nearest_rotation(R), R, rtol=0, atol=1e-5)


def test_uv_embedding_by_hand() -> None:
    code = uv_embedding(4, 1, 2, 1.0)[0]
    x = 1 / np.sqrt(2) * 0.5
    np.testing.assert_allclose(code[:, 0, 0].numpy(), 0.1 * np.array([np.sin(-x), np.cos(-x), 0.0, 1.0]), atol=1e-7)


def test_reference_view_strategies() -> None:
    tokens = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
    assert choose_reference(tokens[:2], "saddle_balanced") == 0
    assert choose_reference(tokens, "first") == 0
    assert choose_reference(tokens, "middle") == 2
    assert 0 <= choose_reference(tokens, "saddle_balanced") < 5
    with pytest.raises(ValueError, match="saddle_balanced"):
        choose_reference(tokens, "best")


def test_focal_is_found_despite_wrong_points() -> None:
    height, width, focal = 60, 80, 95.0
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    points = backproject(1 + torch.rand(height, width), K)
    points[:6] = torch.rand(6, width, 3) + 0.1
    found = fit_focal(points[None], torch.ones(1, height, width))
    assert float(found[0, 0, 0]) == pytest.approx(focal, rel=0.02)
    assert float(found[0, 0, 2]) == width / 2


# Groups


@pytest.mark.parametrize(("views", "size", "overlap"), [(3, 8, 3), (8, 8, 3), (9, 8, 3), (50, 10, 3), (23, 7, 2)])
def test_groups_cover_all_views_and_overlap(views: int, size: int, overlap: int) -> None:
    groups = windows(views, size, overlap)
    assert sorted({view for group in groups for view in group}) == list(range(views))
    assert all(len(group) == min(size, views) for group in groups)
    assert all(len(set(a) & set(b)) >= overlap for a, b in pairwise(groups))


def random_similarity(seed: int) -> tuple[float, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q = torch.nn.functional.normalize(torch.randn(4, generator=generator), dim=0)
    return 0.5 + float(torch.rand(1, generator=generator)), quaternion_to_matrix(q), torch.randn(3, generator=generator)


def test_similarity_is_found_despite_wrong_pairs() -> None:
    scale, R, shift = random_similarity(0)
    a = torch.randn(400, 3, generator=torch.Generator().manual_seed(1))
    b = scale * a @ R.T + shift
    b[:80] += torch.randn(80, 3, generator=torch.Generator().manual_seed(4))
    found = fit_similarity(a, b, torch.ones(400))
    assert found.scale == pytest.approx(scale, rel=1e-3)
    torch.testing.assert_close(found.R_new_old, R, rtol=0, atol=2e-3)
    torch.testing.assert_close(found.shift, shift, rtol=0, atol=5e-3)


def scene_geometry(views: int) -> Geometry:
    """Make views of a bumpy wall, with one Gaussian per view."""
    height, width = 30, 40
    generator = torch.Generator().manual_seed(7)
    K = torch.tensor([[45.0, 0, 20], [0, 45, 15], [0, 0, 1]]).repeat(views, 1, 1)
    q = torch.tensor([0.0, 0.05, 0.0, 1.0]).repeat(views, 1) + 0.05 * torch.randn(views, 4, generator=generator)
    centres = torch.stack((0.2 * torch.arange(views), torch.zeros(views), 0.1 * torch.randn(views, generator=generator)), dim=1)
    depth = 2 + torch.rand(views, height, width, generator=generator)
    return Geometry(
        T_world_cam=rigid(quaternion_to_matrix(q), centres),
        K=K,
        depth=depth,
        confidence=torch.rand(views, height, width, generator=generator) * 0.5 + 0.5,
        gaussians=Gaussians(
            means=centres + torch.tensor([0.0, 0.0, 2.0]),
            quats=torch.nn.functional.normalize(torch.randn(views, 4, generator=generator)),
            scales=torch.rand(views, 3, generator=generator) + 0.1,
            opacities=torch.full((views,), 0.5),
            sh=torch.randn(views, 4, 3, generator=generator),
        ),
    )


def taken_apart(whole: Geometry, group: list[int], seed: int) -> Geometry:
    """Take a group of views into a world and unit of its own."""
    from models.published.stitching import moved
    from recon.formats.conventions import Similarity, moved_gaussians

    scale, R, shift = random_similarity(seed)
    move = Similarity(R_new_old=R, scale=scale, shift=shift)
    return Geometry(
        T_world_cam=moved(whole.T_world_cam[group], move),
        K=whole.K[group],
        depth=scale * whole.depth[group],
        confidence=whole.confidence[group],
        gaussians=moved_gaussians(whole.gaussians.select(torch.tensor(group)), move),
    )


def test_groups_in_different_worlds_join_into_one() -> None:
    whole = scene_geometry(9)
    groups = windows(9, 5, 2)
    parts = [whole if k == 0 else taken_apart(whole, group, k) for k, group in enumerate(groups)]
    first = Geometry(
        T_world_cam=whole.T_world_cam[groups[0]],
        K=whole.K[groups[0]],
        depth=whole.depth[groups[0]],
        confidence=whole.confidence[groups[0]],
        gaussians=whole.gaussians.select(torch.tensor(groups[0])),
    )
    joined = join([first, *parts[1:]], groups)
    torch.testing.assert_close(joined.T_world_cam, whole.T_world_cam, rtol=0, atol=2e-3)
    torch.testing.assert_close(joined.depth, whole.depth, rtol=1e-3, atol=1e-3)
    order = [view for group in groups for view in group]
    torch.testing.assert_close(joined.gaussians.means, whole.gaussians.means[order], rtol=0, atol=5e-3)
    torch.testing.assert_close(joined.gaussians.scales, whole.gaussians.scales[order], rtol=2e-3, atol=1e-3)


# Units


def test_unit_comes_from_points_then_centres_then_the_range() -> None:
    posed = posed_plane([(112, 84)] * 3)
    shrunk = [torch.full((84, 112), 4.0 / 2.5)] * 3
    T_net = posed.cameras.T_world_cam.clone()
    T_net[:, :3, 3] /= 2.5
    ranges = torch.tensor([[1.0, 9.0]]).repeat(3, 1)
    args = (shrunk, T_net, posed, posed.cameras, [0, 1, 2], ranges)
    torch.testing.assert_close(match_unit(*args), torch.full((3,), 2.5), rtol=1e-4, atol=0)
    bare = posed_plane([(112, 84)] * 3, points=0)
    by_centres = match_unit(shrunk, T_net, bare, bare.cameras, [0, 1, 2], ranges)
    torch.testing.assert_close(by_centres, torch.full((3,), 2.5), rtol=1e-4, atol=0)
    still = torch.eye(4).repeat(3, 1, 1)
    by_range = match_unit(shrunk, still, bare, bare.cameras, [0, 1, 2], ranges)
    torch.testing.assert_close(by_range, torch.full((3,), 3.0 / 1.6), rtol=1e-4, atol=0)


# Memory


def test_plan_uses_what_is_there() -> None:
    network, sizes = find_network("da3-base"), [(640, 480)] * 40
    roomy = make_plan(network, sizes, "cpu", bytes_free=ROOMY, dtype=torch.float32)
    assert (roomy.group, roomy.long_side) == (40, 504)
    tight = make_plan(network, sizes, "cpu", bytes_free=3 * GIB, dtype=torch.float32)
    assert 6 <= tight.group < 40
    assert tight.bytes_needed <= FREE_SHARE * 3 * GIB
    weights = weight_bytes(network)
    one_more = needed_bytes(network, tight.group + 1, (504, 378), 1, torch.float32, weights)
    assert one_more > FREE_SHARE * 3 * GIB


def test_plan_refuses_with_numbers() -> None:
    with pytest.raises(UserError, match=r"VGGT-1B needs about \d+\.\d GiB for 6 views .* 2\.0 GiB are free"):
        make_plan(find_network("vggt"), [(640, 480)] * 10, "cpu", bytes_free=2 * GIB, dtype=torch.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_shorter_format_needs_less(name: str) -> None:
    network = find_network(name)
    assert weight_bytes(network, torch.bfloat16) < 0.8 * weight_bytes(network)


# Doors


def predictor(bytes_free: int = ROOMY) -> PublishedPredictor:
    return PublishedPredictor(tiny_network(), TINY, "cpu", dtype=torch.float32, bytes_free=bytes_free)


@pytest.mark.parametrize("sizes", [[(160, 120)] * 3, [(160, 120), (120, 160), (160, 100)]])
def test_posed_photos_get_depth_in_their_world(sizes: list[tuple[int, int]]) -> None:
    posed = posed_plane(sizes)
    ranges = torch.tensor([[2.0, 8.0]]).repeat(len(sizes), 1)
    prediction = predictor()(posed, ((1,), (0,), (0,)), ranges, Progress())
    for view, (width, height) in enumerate(sizes):
        assert (prediction.cameras.width[view], prediction.cameras.height[view]) == network_size(width, height, 112)
        assert tuple(prediction.depth[view].shape) == tuple(reversed(network_size(width, height, 112)))
        points_cam = transform(prediction.cameras.T_cam_world[view], posed.points_world)
        assert float(prediction.depth[view].median()) == pytest.approx(float(points_cam[:, 2].median()), rel=0.7)
        assert float(prediction.confidence[view].min()) == 0.0  # the invalid border
        assert float(prediction.confidence[view].max()) <= 1.0
    back = prediction.cameras.resized([w for w, _ in sizes], [h for _, h in sizes])
    torch.testing.assert_close(back.K, posed.cameras.K, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(back.T_world_cam, posed.cameras.T_world_cam)


def test_given_cameras_reach_the_network_in_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    posed, door = posed_plane([(160, 120), (120, 160)]), predictor()
    told, geometry = [], door.network.geometry

    def spy(images, known, **options):
        told.append(known)
        return geometry(images, known, **options)

    monkeypatch.setattr(door.network, "geometry", spy)
    door(posed, ((), ()), torch.tensor([[2.0, 8.0]] * 2), Progress())
    T_cam_world, K = told[0]
    torch.testing.assert_close(T_cam_world, posed.cameras.T_cam_world)
    torch.testing.assert_close(K[:, :2, 2], torch.full((2, 2), 56.0))  # both photos are centred on a 112 x 112 canvas
    torch.testing.assert_close(K[0, 0, 0], torch.tensor(0.9 * 112))


def photo_views(sizes: list[tuple[int, int]]) -> Views:
    """Make photos of smooth colour gradients."""

    def decoder(seed: int):
        def decode(width: int, height: int) -> np.ndarray:
            x, y = np.arange(width) / width, np.arange(height)[:, None] / height
            return (127 * (1 + np.stack([np.sin(5 * x + y + seed), np.cos(4 * y + x), np.sin(3 * (x + y))], -1))).astype(np.uint8)

        return decode

    def view(k: int, w: int, h: int) -> View:
        size = {"original_width": w, "original_height": h, "width": w // 2, "height": h // 2}
        return View(path=Path(f"p{k}.jpg"), name=f"p{k}.jpg", decode=decoder(k), **size)

    return Views(tuple(view(k, w, h) for k, (w, h) in enumerate(sizes)))


def test_photos_alone_get_cameras_at_their_own_pixels() -> None:
    sizes = [(640, 480), (480, 640)]
    prediction = predictor().predict_views(photo_views(sizes), Progress())
    assert prediction.cameras.names == ("p0.jpg", "p1.jpg")
    original = prediction.cameras.resized([w for w, _ in sizes], [h for _, h in sizes])
    for view, (width, height) in enumerate(sizes):
        assert tuple(prediction.depth[view].shape) == tuple(reversed(network_size(width, height, 112)))
        assert float(original.K[view, 0, 2]) == pytest.approx(width / 2, abs=0.01)
        assert float(original.K[view, 1, 2]) == pytest.approx(height / 2, abs=0.01)


def test_many_photos_run_in_groups_and_come_out_in_one_world() -> None:
    views = photo_views([(160, 120)] * 10)
    weights = weight_bytes(TINY)
    small = int(needed_bytes(TINY, 7, (112, 84), 1, torch.float32, weights) / FREE_SHARE) + 1
    events = []
    prediction = predictor(small).predict_views(views, Progress(lambda event: events.append(event.message)))
    assert len(prediction.depth) == 10
    assert any("views 1 to 7 of 10" in message for message in events)
    assert any("views 4 to 10 of 10" in message for message in events)


def test_shorter_format_stays_near_float32() -> None:
    posed, ranges = posed_plane([(112, 84)] * 2), torch.tensor([[2.0, 8.0]] * 2)
    exact = predictor()(posed, ((), ()), ranges, Progress())
    door = PublishedPredictor(tiny_network(), TINY, "cpu", dtype=torch.bfloat16, bytes_free=ROOMY)
    short = door(posed, ((), ()), ranges, Progress())
    error = torch.stack([(a / b - 1).abs().max() for a, b in zip(short.depth, exact.depth, strict=True)])
    assert 0 < float(error.max()) < 0.1


def test_weights_that_give_nonsense_are_named() -> None:
    broken = tiny_network()
    with torch.no_grad():
        broken.head.output2[2].bias.fill_(float("nan"))
    posed, ranges = posed_plane([(112, 84)] * 2), torch.tensor([[2.0, 8.0]] * 2)
    door = PublishedPredictor(broken, TINY, "cpu", dtype=torch.float32, bytes_free=ROOMY)
    with pytest.raises(UserError, match="not finite"):
        door(posed, ((), ()), ranges, Progress())
