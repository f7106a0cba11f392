"""A mesh from Gaussians of known shape: where its surface lies, what colour it has, and what others make of its files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recon.formats.conventions import Y_UP
from recon.formats.self_check import ExportCheckFailed, cameras_around
from recon.geometry import rgb_to_sh0, rotations_to_quats
from recon.meshing.coloring import grow
from recon.meshing.depths import choose_voxel, draw_depths, fill_gaps, voxel_for
from recon.meshing.holes import Sight, boundary_rings, close_holes
from recon.meshing.mesh_check import MeshCheck, check_mesh
from recon.meshing.mesh_files import write_mesh
from recon.meshing.texture import TexturePhoto, bake, balance, color_vertices, neighbourhoods, rasterize_uvs, unwrap
from recon.meshing.tsdf import Mesh, Rays, clean_mesh, fuse_depths, simplify
from recon.records import Cameras, Gaussians, RasterOptions
from render.rasterizer import load_rasterizer

RADIUS = 1.0


def ball(count: int = 4000) -> Gaussians:
    """Flat opaque discs all over a unit sphere, red where x > 0, blue elsewhere."""
    index = torch.arange(count, dtype=torch.float64)
    z = 1 - (2 * index + 1) / count
    angle = index * (torch.pi * (3 - 5**0.5))
    normals = torch.stack([(1 - z * z).sqrt() * angle.cos(), (1 - z * z).sqrt() * angle.sin(), z], dim=1)
    helper = torch.where(normals[:, :1].abs() < 0.9, torch.tensor([[1.0, 0, 0]]), torch.tensor([[0.0, 1, 0]])).double()
    first = torch.nn.functional.normalize(torch.linalg.cross(normals, helper), dim=1)
    R = torch.stack([first, torch.linalg.cross(normals, first), normals], dim=2)
    red = normals[:, :1] > 0
    colour = torch.where(red, torch.tensor([[0.8, 0.2, 0.2]]), torch.tensor([[0.2, 0.2, 0.8]])).float()
    size = 1.2 * (4 * torch.pi / count) ** 0.5
    return Gaussians(
        means=(RADIUS * normals).float(),
        quats=rotations_to_quats(R).float(),
        scales=torch.tensor([[size / 2, size / 2, size / 30]]).expand(count, 3).contiguous(),
        opacities=torch.full((count,), 0.95),
        sh=rgb_to_sh0(colour)[:, None],
    )


@pytest.fixture(scope="module")
def cameras() -> Cameras:
    return cameras_around(ball(), views=8, side_px=128)


@pytest.fixture(scope="module")
def mesh(cameras: Cameras) -> Mesh:
    scene = ball()
    voxel = choose_voxel(scene, cameras)
    return clean_mesh(fuse_depths(draw_depths(scene, cameras, load_rasterizer("cpu"), 20.0), voxel, far=20.0))


def test_surface_lies_on_the_ball(mesh: Mesh, cameras: Cameras) -> None:
    distance = np.linalg.norm(mesh.vertices, axis=1)
    voxel = choose_voxel(ball(), cameras)
    assert np.median(np.abs(distance - RADIUS)) < 0.5 * voxel  # tangent discs lie a little outside the ball
    equator = np.stack([np.cos(np.arange(60)), np.zeros(60), np.sin(np.arange(60))], axis=1)
    assert np.median(Rays(mesh).distances(equator)) < 0.5 * voxel


def test_faces_look_outward(mesh: Mesh) -> None:
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    outward = (np.cross(b - a, c - a) * (a + b + c)).sum(axis=1) > 0
    assert outward.mean() > 0.99


def test_simplified_mesh_has_the_faces_asked_for_and_the_same_shape(mesh: Mesh) -> None:
    few = simplify(mesh, 800)
    assert 400 < len(few.faces) <= 800
    assert np.abs(np.linalg.norm(few.vertices, axis=1) - RADIUS).max() < 0.1


def test_small_pieces_are_dropped(mesh: Mesh) -> None:
    speck = np.array([[5, 5, 5], [5.1, 5, 5], [5, 5.1, 5]], dtype=np.float32)
    dirty = Mesh(
        vertices=np.concatenate([mesh.vertices, speck]),
        faces=np.concatenate([mesh.faces, len(mesh.vertices) + np.array([[0, 1, 2]])]).astype(np.int32),
        colors=np.concatenate([mesh.colors, np.zeros((3, 3), np.float32)]),
    )
    assert clean_mesh(dirty).vertices.max() < 2


def test_ray_depth_of_a_plane_is_its_z() -> None:
    plane = Mesh(
        vertices=np.array([[-9, -9, 4], [9, -9, 4], [9, 9, 4], [-9, 9, 4]], dtype=np.float32),
        faces=np.array([[0, 2, 1], [0, 3, 2]], dtype=np.int32),
        colors=np.zeros((4, 3), dtype=np.float32),
    )
    depth = Rays(plane).depths(np.array([[20.0, 0, 8], [0, 20, 6], [0, 0, 1]]), np.eye(4), 16, 12)
    assert np.allclose(depth, 4.0, atol=1e-4)


def plane_with_a_hole(around: int = 1) -> Mesh:
    """A grid of squares in the plane z = 4, x and y from -5 to 5, with ``2 around`` squares cut out of its middle."""
    axis = np.arange(-5.0, 6.0)
    x, y = np.meshgrid(axis, axis)
    vertices = np.stack([x.ravel(), y.ravel(), np.full(x.size, 4.0)], axis=1).astype(np.float32)
    row, column = (index.ravel() for index in np.mgrid[:10, :10])
    outside = (np.abs(row - 4.5) > around) | (np.abs(column - 4.5) > around)
    a = (row * 11 + column)[outside]
    faces = np.concatenate([np.stack([a, a + 11, a + 1], axis=1), np.stack([a + 1, a + 11, a + 12], axis=1)])
    return Mesh(vertices=vertices, faces=faces.astype(np.int32), colors=np.full((121, 3), 0.5, dtype=np.float32))


def sight(depth_in_the_middle: float) -> Sight:
    """A camera at the origin that sees the plane, and something else through the middle of the picture."""
    seen = np.full((50, 50), 4.0)
    seen[10:40, 10:40] = depth_in_the_middle
    return Sight(seen=seen, K=np.array([[20.0, 0, 25], [0, 20.0, 25], [0, 0, 1]]), T_world_cam=np.eye(4))


def test_a_hole_is_closed_only_where_a_surface_was_seen() -> None:
    mesh = plane_with_a_hole()
    assert sorted(len(ring) for ring in boundary_rings(mesh.faces)) == [8, 40]
    closed = close_holes(mesh, [sight(4.02)], voxel=0.1)
    assert [len(ring) for ring in boundary_rings(closed.faces)] == [40]
    a, b, c = (closed.vertices[closed.faces[:, i]] for i in range(3))
    assert (np.cross(b - a, c - a)[:, 2] < 0).all(), "all faces look at the camera"
    assert np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2 == pytest.approx(100.0)
    for other in (np.inf, 7.0, 0.0):
        assert close_holes(mesh, [sight(other)], voxel=0.1) is mesh
    assert close_holes(mesh, [], voxel=0.1) is mesh
    assert len(close_holes(mesh, [sight(4.0)] * 8 + [sight(np.inf)], voxel=0.1).faces) > len(mesh.faces)
    assert close_holes(mesh, [sight(4.0), sight(np.inf)], voxel=0.1) is mesh


def wall_with_gap(behind: float, alpha: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Believed depth, expected depth and coverage of a wall at depth 4 with a gap of five pixels."""
    believed, coverage = torch.full((40, 40), 4.0), torch.ones(40, 40)
    believed[18:23, 18:23], coverage[18:23, 18:23] = 0.0, alpha
    return believed, torch.where(believed > 0, believed, behind), coverage


def test_gaps_between_splats_are_filled_only_with_what_they_show() -> None:
    believed, expected, alpha = wall_with_gap(4.02, 0.1)
    filled = fill_gaps(believed, expected, alpha)
    assert torch.equal(filled, expected), "the little that shows lies on the wall"
    assert torch.equal(fill_gaps(*wall_with_gap(5.0, 0.9)), believed), "another surface behind"
    assert torch.equal(fill_gaps(*wall_with_gap(4.02, 0.001)), believed), "nothing there"
    step = torch.where(torch.arange(40) < 20, 4.0, 6.0).expand(40, 40)
    edge = torch.where(believed > 0, step, 0.0)
    assert torch.equal(fill_gaps(edge, step, alpha), edge), "between two surfaces"


def test_a_grid_suits_the_triangles_asked_for() -> None:
    scene, around = ball(), cameras_around(ball(), views=8, side_px=256)
    draw = load_rasterizer("cpu")
    finest = choose_voxel(scene, around)
    pictures = list(draw_depths(scene, around, draw, 20.0))
    assert voxel_for(1_000_000, scene, around, pictures) == finest
    coarse = voxel_for(1000, scene, around, pictures)
    raw = fuse_depths(draw_depths(scene, around, draw, 20.0), coarse, 20.0)
    assert 2000 < len(raw.faces) < 8000, "about four times as many before they are simplified"


def test_neighbourhoods_hold_every_face_once_and_lie_together(mesh: Mesh) -> None:
    groups = neighbourhoods(mesh, 100)
    assert np.array_equal(np.sort(np.concatenate(groups)), np.arange(len(mesh.faces)))
    assert max(len(group) for group in groups) <= 100
    middles = mesh.vertices[mesh.faces].mean(axis=1)
    assert np.median([np.ptp(middles[group], axis=0).max() for group in groups]) < RADIUS


def test_unwrapped_charts_do_not_overlap_and_keep_the_shape(mesh: Mesh) -> None:
    few = simplify(mesh, 1500)
    flat = unwrap(few)
    assert flat.uvs is not None
    assert flat.uvs.min() >= 0
    assert flat.uvs.max() <= 1
    sort = [np.sort(m.vertices[m.faces].reshape(-1, 9), axis=0) for m in (few, flat)]
    assert np.array_equal(*sort)
    a, b, c = (flat.uvs[flat.faces[:, i]].astype(float) for i in range(3))
    area = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).sum() / 2
    texel, _, _ = rasterize_uvs(flat.uvs, flat.faces, 512)
    assert area == pytest.approx(len(texel) / 512**2, rel=0.15), "texels covered once"


def test_colour_grows_by_one_texel() -> None:
    texture, filled = np.zeros((5, 5, 3), np.float32), np.zeros((5, 5), bool)
    texture[2, 2], filled[2, 2] = 0.5, True
    grown, now = grow(texture, filled)
    assert now.sum() == 5
    assert np.allclose(grown[now], 0.5)


def photos_of(scene: Gaussians, cameras: Cameras, gains: list[float]) -> list[TexturePhoto]:
    color = load_rasterizer("cpu")(scene, cameras, RasterOptions()).color.clamp(0, 1)
    K, T_world_cam = cameras.K.double().numpy(), cameras.T_world_cam.double().numpy()
    pixels = [(color[i] * gains[i] * 255).clamp(0, 255).round().to(torch.uint8).numpy() for i in range(len(cameras))]
    return [TexturePhoto(image=pixels[i], K=K[i], T_world_cam=T_world_cam[i]) for i in range(len(cameras))]


def test_vertex_colours_come_from_the_photos_at_one_exposure(mesh: Mesh, cameras: Cameras) -> None:
    """Photos of different exposure give one even colour, that of the scene."""
    gains = [1.0, 0.8, 1.1, 0.9, 1.0, 0.85, 1.15, 0.95]
    coloured = color_vertices(mesh, photos_of(ball(), cameras, gains))
    deep = mesh.vertices[:, 0] > 0.3
    level = np.abs(mesh.vertices[:, 1]) < 0.5
    red = coloured.colors[deep & level]
    assert np.allclose(np.median(red, axis=0), [0.8, 0.2, 0.2], atol=0.06)
    assert red[:, 0].std() < 0.05


def test_gains_undo_exposure() -> None:
    reference = np.random.default_rng(0).uniform(0.2, 0.6, (500, 3))
    gains = balance([(reference * 0.8, np.ones(500)), (reference * 1.25, np.ones(500))], reference)
    assert np.allclose(gains[0], 1.25)
    assert np.allclose(gains[1], 0.8)


def test_every_texel_of_a_triangle_is_found_once() -> None:
    uvs = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=np.float32)
    texel, face, weights = rasterize_uvs(uvs, np.array([[0, 1, 2], [1, 3, 2]]), 16)
    assert np.array_equal(texel, np.arange(256))
    assert set(face) == {0, 1}
    assert np.allclose(weights.sum(axis=1), 1.0, atol=1e-2)


def test_textured_glb_opens_elsewhere_upright(mesh: Mesh, cameras: Cameras, tmp_path: Path) -> None:
    import trimesh

    baked = bake(unwrap(simplify(mesh, 1500)), photos_of(ball(), cameras, [1.0] * 8), 128)
    assert baked.texture is not None
    files = write_mesh(tmp_path / "mesh.glb", baked, R_file_world=Y_UP.double().numpy())
    loaded = trimesh.load(files[0], force="mesh")
    assert len(loaded.faces) == len(baked.faces)
    assert np.allclose(loaded.bounds[:, [0, 2]], [[-1, -1], [1, 1]], atol=0.08)  # the ring of cameras misses the poles
    texture = np.asarray(loaded.visual.material.baseColorTexture.convert("RGB")).astype(float) / 255
    at = (loaded.visual.uv * [1, -1] + [0, 1]) * (texture.shape[1] - 1)
    colour = texture[at[:, 1].round().astype(int).clip(0, 127), at[:, 0].round().astype(int).clip(0, 127)]
    right = (loaded.vertices[:, 0] > 0.4) & (np.abs(loaded.vertices[:, 1]) < 0.5)
    assert np.allclose(np.median(colour[right], axis=0), [0.8, 0.2, 0.2], atol=0.1)


def test_a_written_mesh_is_checked_against_the_scene(mesh: Mesh, cameras: Cameras, tmp_path: Path) -> None:
    """The file that shows the scene passes; one that is turned, of another size or short of triangles does not."""
    scene, draw = replace(ball(), means=ball().means + torch.tensor([0.0, 0.7, 0.0])), load_rasterizer("cpu")
    raised = replace(mesh, vertices=mesh.vertices + np.array([0, 0.7, 0], np.float32))
    about = cameras_around(scene, views=4, side_px=128)

    def check(given: Mesh, *, turned: bool = False, scale: float = 2.0) -> MeshCheck:
        R = np.eye(3) if turned else Y_UP.double().numpy()
        return check_mesh(tmp_path / "a.ply", given, scene, draw, cameras=about, R_file_world=R, scale=scale)

    write_mesh(tmp_path / "a.ply", raised, R_file_world=Y_UP.double().numpy(), scale=2.0)
    good = check(raised)
    assert good.faces_read == len(mesh.faces)
    assert good.covered > 0.9
    assert good.depth_difference < 0.02
    for wrong in ({"turned": True}, {"scale": 1.0}):
        with pytest.raises(ExportCheckFailed, match="does not show"):
            check(raised, **wrong)
    with pytest.raises(ExportCheckFailed, match="triangles"):
        check(simplify(raised, 500))


@pytest.mark.parametrize("name", ["mesh.ply", "mesh.obj", "mesh.stl"])
def test_other_files_open_elsewhere(name: str, mesh: Mesh, tmp_path: Path) -> None:
    import trimesh

    write_mesh(tmp_path / name, mesh, R_file_world=np.eye(3), scale=1000.0)
    loaded = trimesh.load(tmp_path / name, force="mesh")
    assert len(loaded.faces) == len(mesh.faces)
    assert np.allclose(np.abs(loaded.bounds).max(), 1000 * np.abs(mesh.vertices).max(), rtol=1e-4)
