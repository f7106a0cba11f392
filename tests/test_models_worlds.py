"""Ingredients of procedural worlds: shapes, holes, relief, kinds, styles and flaws of photographs, each against a witness."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from app.cli import main
from models.training import photography, raycast, shading, shapes
from models.training.ingredients import INGREDIENTS, WorldConfig, without
from models.training.objects import Objects
from models.training.paths import camera_path, euler, pick_style
from models.training.photography import defocused, photograph, smeared
from models.training.relief import reliefs
from models.training.scenes import KINDS, Scenes, surface_height
from models.training.worlds import Worlds

HEIGHTS = reliefs(np.random.default_rng(0), 2, points=17)
STEPS = 6000
"""Places along each ray at which the witness looks."""
SIZE = 24
CLOSE = 2e-4
"""Float32 cameras, and a witness that bisects between its places."""


def primitive(shape: int, *, half=(1.0, 0.8, 0.9), parameters=(0.3, 0.0), hole=None) -> np.ndarray:
    row = np.zeros(shapes.FIELDS, np.float32)
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    row[0], row[1:4], row[4:13], row[13:16] = shape, (0.1, -0.1, 4.0), turn.reshape(-1), half
    row[17], row[18:21], row[25] = 1.0, 1.0, np.linalg.norm(half)
    row[shapes.PARAMETERS : shapes.PARAMETERS + 2] = parameters
    if hole is not None:
        row[shapes.CUT :] = hole
    return row


def eyes_at(count: int, size: int = SIZE, bend: float = 0.0) -> shading.Eyes:
    """Cameras at the origin and a little beside it, looking along z."""
    T_world_cam = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
    T_world_cam[:, 0, 3] = np.linspace(0, 0.7, count)
    K = np.tile(np.array([[1.4 * size, 0, size / 2], [0, 1.4 * size, size / 2], [0, 0, 1]], np.float32), (count, 1, 1))
    return shading.Eyes(T_world_cam, K, np.full(count, bend, np.float32))


def world_of(rows: list[np.ndarray], views: int) -> shading.World:
    return shading.World(np.repeat(np.stack(rows)[None], views, axis=0), HEIGHTS)


def bilinear(grid: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    u, v = (x + 1) / 2 * (len(grid) - 1), (y + 1) / 2 * (len(grid) - 1)
    i, j = u.astype(int), v.astype(int)
    above = grid[j, i] * (i + 1 - u) + grid[j, i + 1] * (u - i)
    return above * (j + 1 - v) + (grid[j + 1, i] * (i + 1 - u) + grid[j + 1, i + 1] * (u - i)) * (v - j)


def inside(row: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Below 0 inside a primitive (for relief: beneath it), in float64, from the definition of the shape."""
    row = row.astype(np.float64)
    x, y, z = np.moveaxis((points - row[1:4]) @ row[4:13].reshape(3, 3).T / row[13:16], -1, 0)
    a, b = row[shapes.PARAMETERS : shapes.PARAMETERS + 2]
    shape = int(row[0])
    if shape == shapes.BOX:
        value = np.maximum(np.maximum(abs(x), abs(y)), abs(z)) - 1
    elif shape == shapes.ELLIPSOID:
        value = x * x + y * y + z * z - 1
    elif shape == shapes.CYLINDER:
        value = np.maximum(np.hypot(x, y), abs(z)) - 1
    elif shape == shapes.CONE:
        value = np.maximum(np.hypot(x, y) - (1 - z) / 2, abs(z) - 1)
    elif shape == shapes.TORUS:
        value = np.hypot(np.hypot(x, y) - (1 - a), z) - a
    elif shape == shapes.SUPERQUADRIC:
        value = (abs(x) ** a + abs(y) ** a) ** (b / a) + abs(z) ** b - 1
    else:
        within = np.maximum(abs(x), abs(y)) < 1
        value = np.full(x.shape, np.nan)
        value[within] = z[within] - bilinear(HEIGHTS[int(a)].astype(np.float64), x[within], y[within])
    if row[shapes.CUT + 3 :].any():
        hole = ((np.stack([x, y, z], -1) - row[28:31]) * row[31:34]) ** 2
        value = np.maximum(value, 1 - hole.sum(-1))
    return value


def witnessed(row: np.ndarray, eyes: shading.Eyes, view: int, v: float, u: float) -> float:
    """Depth of the first change of sign along a ray, found by looking everywhere and bisecting."""
    K, T_world_cam = eyes.K[view].astype(np.float64), eyes.T_world_cam[view].astype(np.float64)
    direction = T_world_cam[:3, :3] @ np.array([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], 1.0])
    origin = T_world_cam[:3, 3]
    t = np.linspace(2.0, 6.0, STEPS)
    value = inside(row, origin + t[:, None] * direction)
    crossing = np.flatnonzero(np.sign(value[:-1]) * np.sign(value[1:]) < 0)  # not a number is no change of sign
    if not len(crossing):
        return 1e30
    low, high = t[crossing[0]], t[crossing[0] + 1]
    sign = np.sign(value[crossing[0]])
    for _ in range(40):
        middle = (low + high) / 2
        if sign * inside(row, (origin + middle * direction)[None])[0] > 0:
            low = middle
        else:
            high = middle
    return high


BALL = (0.3, 0.2, 0.9, 1 / 0.6, 1 / 0.7, 1 / 0.8)
BORE = (0.1, -0.2, 0.0, 1 / 0.5, 1 / 0.6, 0.0)
CASES = {
    "cone": primitive(shapes.CONE),
    "torus": primitive(shapes.TORUS, half=(1.0, 1.0, 1.0)),
    "flattened thin torus": primitive(shapes.TORUS, half=(1.0, 0.7, 1.3), parameters=(0.1, 0.0)),
    "round superquadric": primitive(shapes.SUPERQUADRIC, parameters=(2.5, 4.0)),
    "edged superquadric": primitive(shapes.SUPERQUADRIC, parameters=(8.0, 1.0)),
    "octahedron": primitive(shapes.SUPERQUADRIC, parameters=(1.0, 1.0)),
    "wire": primitive(shapes.CYLINDER, half=(0.06, 0.06, 1.4)),
    "terrain": primitive(shapes.RELIEF, half=(1.2, 1.2, 0.4), parameters=(0.0, 0.0)),
    "bumps": primitive(shapes.RELIEF, half=(1.2, 1.0, 0.3), parameters=(1.0, 0.0)),
    "box with a round hole": primitive(shapes.BOX, hole=BALL),
    "box bored through": primitive(shapes.BOX, hole=BORE),
    "bitten ellipsoid": primitive(shapes.ELLIPSOID, hole=BALL),
    "bored cylinder": primitive(shapes.CYLINDER, hole=BORE),
    "bored cone": primitive(shapes.CONE, hole=BORE),
}


@pytest.mark.parametrize("name", CASES)
def test_shapes_are_hit_where_their_definition_says(name):
    row, eyes = CASES[name], eyes_at(2)
    depth = raycast.cast_depth(world_of([row], 2), eyes, SIZE, SIZE, 1)
    expected = np.array(
        [[[witnessed(row, eyes, view, i + 0.5, j + 0.5) for j in range(SIZE)] for i in range(SIZE)] for view in range(2)]
    )
    hit, wanted = depth < 1e20, expected < 1e20
    assert wanted.mean() > 0.01
    assert (hit != wanted).mean() < 0.003  # rays that graze, which the witness may step over
    both = hit & wanted
    wrong = np.abs(depth[both] / expected[both] - 1) > CLOSE
    assert wrong.mean() < 0.003


@pytest.mark.parametrize("name", CASES)
def test_normals_are_those_of_the_depth(name):
    """Shading is finite, and the normal is at right angles to the surface that neighbouring depths span."""
    row, eyes = CASES[name], eyes_at(1, 288)
    world = world_of([row], 1)
    atlas = shading.mip_atlas(np.full((1, 16, 16, 3), 255, np.uint8))
    sky = np.zeros(8, np.float32)
    shades = [
        raycast.cast_colors(world, atlas, sky, np.array([*way, 0.0, -1.0], np.float32), eyes, 288, 288, 1)[0, :, :, 0]
        for way in np.concatenate([np.eye(3), -np.eye(3)])
    ]
    normal = np.stack([shades[i] - shades[i + 3] for i in range(3)], axis=-1)
    assert np.isfinite(normal).all()
    depth = raycast.cast_depth(world, eyes, 288, 288, 1)[0].astype(np.float64)
    solid = depth < 1e20
    assert np.allclose(np.linalg.norm(normal[solid], axis=-1), 1, atol=1e-3)
    y, x = np.mgrid[0:288, 0:288] + 0.5
    points = np.stack([(x - 144) / 403.2, (y - 144) / 403.2, np.ones_like(x)], -1) * np.where(solid, depth, 0)[..., None]
    across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
    spanned = np.cross(across, down)
    spanned /= np.linalg.norm(spanned, axis=-1, keepdims=True) + 1e-12
    near = np.maximum(np.abs(np.diff(depth, 2, axis=0))[:, 1:-1], np.abs(np.diff(depth, 2, axis=1))[1:-1]) < 1e-3
    cosine = np.abs((spanned * normal[1:-1, 1:-1]).sum(-1))[near & solid[1:-1, 1:-1]]
    if name != "wire":  # two pixels wide
        assert len(cosine) > 50
        smoothed = name in ("terrain", "bumps")  # shading blends the slopes of neighbouring cells, of which these grids have few
        assert np.median(cosine) > (0.9 if smoothed else 0.99)


@pytest.mark.parametrize("name", CASES)
def test_exact_normals_are_gradients_of_the_shape_s_definition(name):
    """Of the surface where the ray meets it, in the camera's frame: facets of relief and walls of holes as depth has them."""
    row, eyes = CASES[name], eyes_at(2, 96)
    eyes.T_world_cam[1, :3, :3] = euler(-0.15, 0.05, 0.1)
    world = world_of([row], 2)
    depth, normals = raycast.cast_surfaces(world, eyes, 96, 96, 2)
    assert np.array_equal(depth, raycast.cast_depth(world, eyes, 96, 96, 2)), "the rays of depth"
    solid = depth < 1e20
    assert solid.any(axis=(1, 2)).all()
    assert not normals[~solid].any()
    assert np.allclose(np.linalg.norm(normals[solid], axis=-1), 1, atol=1e-6)
    y, x = np.mgrid[1:96:2, 1:96:2].astype(np.float64)
    rays = np.stack([(x - 48) / 134.4, (y - 48) / 134.4, np.ones_like(x)], axis=-1)
    assert ((normals * rays).sum(-1) <= 1e-6).all(), "towards the camera"
    T = eyes.T_world_cam.astype(np.float64)
    along = np.einsum("vij,hwj->vhwi", T[:, :3, :3], rays)
    points = (T[:, None, None, :3, 3] + depth[..., None] * along)[solid]
    step = 1e-5 * np.eye(3)
    slope = np.stack([inside(row, points + one) - inside(row, points - one) for one in step], axis=-1)
    known = np.isfinite(slope).all(axis=-1)
    expected = slope[known] / np.linalg.norm(slope[known], axis=-1, keepdims=True)
    in_world = np.einsum("vij,vhwj->vhwi", T[:, :3, :3], normals)[solid][known]
    off = 1 - np.abs((in_world * expected).sum(-1))
    assert np.median(off) < 1e-6
    assert (off > 1e-3).mean() < 0.02  # edges, where a step of the witness crosses into the other face


@pytest.mark.parametrize("bend", [0.0, 0.05])
def test_depth_of_cells_is_that_of_the_rays_through_their_middles(bend):
    rows = [CASES["torus"], CASES["terrain"], primitive(shapes.ROOM, half=(9, 9, 9))]
    for cell in (2, 4, 8):
        eyes = eyes_at(2, 48, bend)
        coarse = raycast.cast_depth(world_of(rows, 2), eyes, 48, 48, cell)
        K = eyes.K.copy()
        K[:, :2] /= cell
        fine = raycast.cast_depth(world_of(rows, 2), eyes._replace(K=K), 48 // cell, 48 // cell, 1)
        assert np.allclose(coarse, fine, rtol=1e-5)


def test_a_bent_ray_meets_what_is_farther_out():
    """The corner of a photo of a wall shows the place that the lens's bend says."""
    slope = primitive(shapes.BOX, half=(50, 50, 1))
    slope[4:13] = np.array([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]]).reshape(-1)
    eyes = eyes_at(1, 48, 0.1)
    depth = raycast.cast_depth(world_of([slope], 1), eyes, 48, 48, 2)[0]
    x, y = (1 - 24) / 67.2, (1 - 24) / 67.2
    direction = np.array([x, y, 0]) * (1 + 0.1 * (x * x + y * y)) + np.array([0, 0, 1])
    normal = np.array([-0.6, 0, 0.8])
    assert depth[0, 0] == pytest.approx((normal @ np.array([0.1, -0.1, 4.0]) - 1) / (normal @ direction), rel=1e-4)


def test_shadows_fall_where_something_hides_the_light():
    floor = primitive(shapes.BOX, half=(20, 1, 20))
    floor[1:4], floor[4:13] = (0, 2, 4), np.eye(3).reshape(-1)
    ball = primitive(shapes.ELLIPSOID, half=(0.4, 0.4, 0.4))
    ball[1:4] = (0, 0.2, 4)
    atlas = shading.mip_atlas(np.full((1, 16, 16, 3), 255, np.uint8))
    eyes = eyes_at(1, 96)

    def shown(size: float) -> np.ndarray:
        light = np.array([0, -1, 0, 0.3, size], np.float32)
        return raycast.cast_colors(world_of([floor, ball], 1), atlas, np.zeros(8, np.float32), light, eyes, 96, 96, 1)[0, ..., 0]

    depth = raycast.cast_depth(world_of([floor, ball], 1), eyes, 96, 96, 1)[0]
    y, x = np.mgrid[0:96, 0:96] + 0.5
    point = np.stack([(x - 48) / 134.4, (y - 48) / 134.4, np.ones_like(x)], -1) * depth[..., None]
    on_floor = np.abs(point[..., 1] - 1) < 1e-3
    under = np.hypot(point[..., 0], point[..., 2] - 4) / 0.4
    hard, none, soft = shown(0.0), shown(-1.0), shown(0.3)
    assert np.allclose(none[on_floor], 1, atol=1e-4)
    assert np.allclose(hard[on_floor & (under < 0.8)], 0.3, atol=1e-4)
    assert np.allclose(hard[on_floor & (under > 1.2)], 1, atol=1e-4)
    partly = [int(((one > 0.31) & (one < 0.99))[on_floor].sum()) for one in (soft, hard)]
    assert partly[0] > 2 * partly[1] > 0, "a large light has a wide half-shadow"


def test_something_that_moves_is_elsewhere_in_each_photo_and_its_depth_with_it():
    config = without([name for name in INGREDIENTS if name != "movers"], WorldConfig(movers=1.0))
    rng = np.random.default_rng(1)
    scene = Scenes(rng, config, Objects(rng, config, lambda: 0, HEIGHTS)).make(3)
    moved = (scene.primitives[0] != scene.primitives[1]).any(axis=1)
    assert 1 <= moved.sum() <= 2
    at = scene.primitives[:, np.flatnonzero(moved)[0], 1:4]
    assert np.linalg.norm(at[0] - at[2]) > 0.02
    ball = np.stack([[primitive(shapes.ELLIPSOID)], [primitive(shapes.ELLIPSOID)]])
    ball[1, 0, 3] = 5.0
    eyes = eyes_at(2)._replace(T_world_cam=np.tile(np.eye(4, dtype=np.float32), (2, 1, 1)))
    near, far = raycast.cast_depth(shading.World(ball, HEIGHTS), eyes, SIZE, SIZE, 1)[:, SIZE // 2, SIZE // 2]
    assert far - near == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_world_can_be_photographed_and_its_seed_makes_it_again(kind):
    made = []
    for _ in range(2):
        worlds = Worlds(None, seed=21)
        worlds.scenes.kinds, worlds.scenes.shares = [kind], np.array([1.0])
        made.append(worlds.capture(2, 64, 80))
    assert made[0].kind == kind
    assert np.array_equal(made[0].images, made[1].images)
    assert all(np.array_equal(made[0].depth[cell], made[1].depth[cell]) for cell in (2, 4, 8))
    assert np.array_equal(made[0].normals, made[1].normals)
    assert np.array_equal(made[0].normals.any(axis=-1), made[0].depth[2] < 1e20)
    assert np.isfinite(made[0].images).all()
    assert (made[0].depth[2] < 1e20).mean() > 0.35


def test_cameras_of_terrain_stay_above_it():
    config = WorldConfig(terrain=1e6)
    rng = np.random.default_rng(2)
    scene = Scenes(rng, config, Objects(rng, config, lambda: 0, HEIGHTS)).make(1)
    ground = next(row for row in scene.primitives[0] if row[0] == shapes.RELIEF)
    T_world_cam = np.eye(4, dtype=np.float32)[None]
    T_world_cam[0, 1, 3] = surface_height(ground, HEIGHTS, T_world_cam[0, :3, 3]) - ground[15]
    assert scene.above_ground(T_world_cam, HEIGHTS)
    T_world_cam[0, 1, 3] += 1.5 * ground[15]
    assert not scene.above_ground(T_world_cam, HEIGHTS)


def test_a_drone_looks_down_from_high_above_and_a_turn_hardly_moves():
    rng, config, target = np.random.default_rng(0), WorldConfig(), np.array([1.0, 0.5, 2.0])
    for _ in range(10):
        drone = camera_path(rng, config, 4, "drone", target=target, reach=2.0)
        assert (drone[:, 1, 3] < target[1] - 1.0).all()
        assert (drone[:, 1, 2] > 0.3).all()  # forward points down
        turn = camera_path(rng, config, 4, "turn", target=target, reach=2.0)
        assert np.ptp(turn[:, :3, 3], axis=0).max() < 0.5
        assert turn[0, :3, 2] @ turn[-1, :3, 2] < np.cos(0.15)
    styles = [pick_style(rng, config, under_sky=False) for _ in range(200)]
    assert "drone" not in styles
    assert "turn" in styles


def test_shaking_and_defocus_blur_and_leave_what_is_in_focus():
    rng = np.random.default_rng(0)
    images = rng.random((3, 48, 64, 3), dtype=np.float32)
    shaken = [float(np.abs(np.diff(one, axis=1)).mean()) for one in smeared(images, np.random.default_rng(1))]
    assert min(shaken) < 0.8 * float(np.abs(np.diff(images, axis=2)).mean())
    depth = np.full((3, 24, 32), 2.0, np.float32)
    assert np.array_equal(defocused(images, depth, rng), images)
    depth[:, :, 16:] = 8.0
    blurred = defocused(images, depth, np.random.default_rng(0))
    rough = [float(np.abs(np.diff(side, axis=2)).mean()) for side in (blurred[:, :, 2:30], blurred[:, :, 34:62])]
    assert max(rough) == pytest.approx(float(np.abs(np.diff(images, axis=2)).mean()), rel=0.1)
    assert min(rough) < 0.8 * max(rough)


def test_every_ingredient_can_be_left_out():
    """Each share set to 0 takes its thing out of what is drawn; the rest stays."""
    for name in INGREDIENTS:
        assert getattr(without([name]), name) == 0
    with pytest.raises(ValueError, match="wanted names among"):
        without(["ghosts"])
    rng = np.random.default_rng(0)
    drawn = {}
    for name in ("", "cones", "tori", "superquadrics", "wires", "cuts", "reliefs"):
        config = without([name] if name else [])
        rows = np.stack([Objects(rng, config, lambda: 0, HEIGHTS).thing(1.0, 1.0) for _ in range(400)])
        thin = (rows[:, 0] == shapes.CYLINDER) & (rows[:, 13] < 0.0151) & (rows[:, 15] > 8 * rows[:, 13])
        found = {
            "cones": rows[:, 0] == shapes.CONE,
            "tori": rows[:, 0] == shapes.TORUS,
            "superquadrics": rows[:, 0] == shapes.SUPERQUADRIC,
            "wires": thin,
            "cuts": rows[:, shapes.CUT + 3 :].any(axis=1),
            "reliefs": rows[:, 0] == shapes.RELIEF,
        }
        drawn[name] = {key: int(value.sum()) for key, value in found.items()}
    for name in drawn[""]:
        assert drawn[""][name] > 0
        assert drawn[name][name] == 0
        assert sum(count > 0 for count in drawn[name].values()) == len(drawn[""]) - 1
    for name in ("court", "terrain", "table"):
        config = without([name])
        scenes = Scenes(rng, config, Objects(rng, config, lambda: 0, HEIGHTS))
        kinds = {scenes.make(1).kind for _ in range(80)}
        assert kinds == set(KINDS) - {name}
    for name in ("drone", "turn"):
        styles = {pick_style(rng, without([name]), under_sky=True) for _ in range(200)}
        assert styles == {"orbit", "forward", "walk", "wide", "drone", "turn"} - {name}
    none = Worlds(None, 0, without(("shadows", "distortion_px", "movers")))
    assert all(none._light()[4] < 0 for _ in range(20))
    assert all(not none._bend(eyes_at(2).K, 48, 48).any() for _ in range(20))
    config = without(("movers",))
    scenes = Scenes(rng, config, Objects(rng, config, lambda: 0, HEIGHTS))
    assert all((made.primitives[0] == made.primitives[1]).all() for made in (scenes.make(2) for _ in range(20)))


def test_blurs_are_switched_by_their_shares(monkeypatch):
    images = np.random.default_rng(0).random((2, 48, 64, 3), dtype=np.float32)
    depth = np.linspace(1, 5, 24 * 32 * 2, dtype=np.float32).reshape(2, 24, 32)
    done: list[str] = []
    monkeypatch.setattr(photography, "smeared", lambda images, rng: done.append("motion_blur") or images)
    monkeypatch.setattr(photography, "defocused", lambda images, depth, rng: done.append("defocus") or images)
    sharp = without(("motion_blur", "defocus"))
    for config in (sharp, replace(sharp, motion_blur=1.0), replace(sharp, defocus=1.0)):
        photograph(images, np.random.default_rng(0), config=config, depth=depth)
    assert done == ["motion_blur", "defocus"]


def test_a_sheet_may_leave_ingredients_out(tmp_path):
    words = ["worlds", "--sheet", str(tmp_path / "a.png"), "--worlds", "1", "--views", "2", "--height", "64", "--width", "64"]
    assert main([*words, "--without", "tori,movers"]) == 0
    assert main([*words, "--without", "ghosts"]) == 2
    assert main(["train", "mini", "--out", str(tmp_path), "--without", "ghosts"]) == 2
