"""Depth pictures -> one surface.

Input: ``DepthPicture`` of many cameras. Output: ``Mesh`` with vertex colours, world frame.
Does not: draw or colour from photos. Open3D does the fusing and the simplification; this is its wall.

Truncated signed distances are averaged in a sparse voxel grid, and the zero surface is extracted.
Source: Curless and Levoy, "A volumetric method for building complex models from range images", SIGGRAPH 1996.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ..errors import UserError
from .depths import DepthPicture, as_numpy

TRUNCATION_VOXELS = 4.0
SMALL_PIECE_SHARE = 0.002
"""Connected pieces with less than this share of the triangles are dirt."""
KEPT_PIECE_FACES = 50
BLOCK, FIRST_BLOCKS = 8, 4000
TWO_WITNESSES = 5
"""From this many views on, a surface must be seen by two."""
NO_SURFACE = UserError("No surface came out of this scene.", "Its Gaussians are too thin or too few; try a larger --voxel.")


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Triangles in the world frame. All arrays are numpy."""

    vertices: np.ndarray
    """N 3 float32, world units."""
    faces: np.ndarray
    """M 3 int32, counter-clockwise seen from outside."""
    colors: np.ndarray
    """N 3 in [0, 1], sRGB."""
    uvs: np.ndarray | None = None
    """N 2 in [0, 1], v up; None without a texture."""
    texture: np.ndarray | None = None
    """Side side 3 uint8."""


def fuse_depths(pictures: Iterable[DepthPicture], voxel: float, far: float) -> Mesh:
    """Fuse depth pictures in a sparse grid that grows with the surface.

    Args:
        voxel: edge of a cell, world units.
        far: depth beyond which nothing is believed, world units.

    Raises:
        UserError: no surface came out.
    """
    pictures = iter(pictures)
    first = next(pictures, None)  # drawn before Open3D is loaded: its old copy of TBB would keep Numba from using the new one
    if first is None:
        raise NO_SURFACE
    import open3d as o3d

    kind, tensor, image = o3d.core.float32, o3d.core.Tensor, o3d.t.geometry.Image
    grid = o3d.t.geometry.VoxelBlockGrid(
        attr_names=("tsdf", "weight", "color"),
        attr_dtypes=(kind, kind, kind),
        attr_channels=((1), (1), (3)),
        voxel_size=voxel,
        block_resolution=BLOCK,
        block_count=FIRST_BLOCKS,
    )
    views = 0
    for picture in chain([first], pictures):
        depth = image(tensor(as_numpy(picture.depth)[..., None].astype(np.float32)))
        color = image(tensor(as_numpy(picture.color).astype(np.float32)))
        K = as_numpy(picture.K).astype(np.float64)
        K[:2, 2] -= 0.5  # Open3D puts pixel centres at integers
        lens, T_cam_world = tensor(K), tensor(np.linalg.inv(as_numpy(picture.T_world_cam).astype(np.float64)))
        if not bool((picture.depth > 0).any()):
            continue
        blocks = grid.compute_unique_block_coordinates(depth, lens, T_cam_world, 1.0, far, TRUNCATION_VOXELS)
        grid.integrate(blocks, depth, color, lens, lens, T_cam_world, 1.0, far, TRUNCATION_VOXELS)
        views += 1
    if views == 0:
        raise NO_SURFACE
    return _from_open3d(grid.extract_triangle_mesh(weight_threshold=1.5 if views >= TWO_WITNESSES else 0.5).to_legacy())


def _from_open3d(mesh) -> Mesh:  # an open3d TriangleMesh; the package is imported late
    if len(mesh.triangles) == 0:
        raise NO_SURFACE
    return Mesh(
        vertices=np.asarray(mesh.vertices, dtype=np.float32),
        faces=np.asarray(mesh.triangles, dtype=np.int32),
        colors=np.asarray(mesh.vertex_colors, dtype=np.float32),
    )


def _to_open3d(mesh: Mesh):
    import open3d as o3d

    made = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(mesh.vertices.astype(np.float64)), o3d.utility.Vector3iVector(mesh.faces)
    )
    made.vertex_colors = o3d.utility.Vector3dVector(mesh.colors.astype(np.float64))
    return made


def clean_mesh(mesh: Mesh) -> Mesh:
    """Drop degenerate and double triangles, edges of more than two, and small loose pieces."""
    made = _to_open3d(mesh)
    made.remove_duplicated_vertices()
    made.remove_degenerate_triangles()
    made.remove_duplicated_triangles()
    made.remove_non_manifold_edges()
    piece, sizes, _ = made.cluster_connected_triangles()
    sizes = np.asarray(sizes)
    enough = np.minimum(max(KEPT_PIECE_FACES, SMALL_PIECE_SHARE * sizes.sum()), sizes.max())
    made.remove_triangles_by_mask(sizes[np.asarray(piece)] < enough)
    made.remove_unreferenced_vertices()
    return _from_open3d(made)


def simplify(mesh: Mesh, faces: int) -> Mesh:
    """Reduce to at most ``faces`` triangles by quadric error (Garland and Heckbert, SIGGRAPH 1997)."""
    if len(mesh.faces) <= faces:
        return mesh
    made = _to_open3d(mesh).simplify_quadric_decimation(target_number_of_triangles=faces)
    made.remove_degenerate_triangles()
    made.remove_unreferenced_vertices()
    return _from_open3d(made)


def face_normals(mesh: Mesh) -> np.ndarray:
    """Unit normals, M 3."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    normals = np.cross(b - a, c - a)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)


def vertex_normals(mesh: Mesh) -> np.ndarray:
    """Mean of the normals of the faces around each vertex, unit length, N 3."""
    of_faces, normals = face_normals(mesh), np.empty_like(mesh.vertices)
    for axis in range(3):
        normals[:, axis] = np.bincount(mesh.faces.ravel(), np.repeat(of_faces[:, axis], 3), len(mesh.vertices))
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


class Rays:
    """A mesh ready to be hit by rays and asked for distances."""

    def __init__(self, mesh: Mesh) -> None:
        import open3d as o3d

        self._tensor = o3d.core.Tensor
        self._scene = o3d.t.geometry.RaycastingScene(nthreads=0)
        self._scene.add_triangles(o3d.core.Tensor(mesh.vertices), o3d.core.Tensor(mesh.faces.astype(np.uint32)))

    def depths(self, K: np.ndarray, T_world_cam: np.ndarray, width: int, height: int) -> np.ndarray:
        """z-depth of the mesh at every pixel centre of a camera, H W; infinite where nothing is hit."""
        x, y = np.meshgrid((np.arange(width) + 0.5 - K[0, 2]) / K[0, 0], (np.arange(height) + 0.5 - K[1, 2]) / K[1, 1])
        directions = np.stack([x, y, np.ones_like(x)], axis=-1) @ T_world_cam[:3, :3].T
        origins = np.broadcast_to(T_world_cam[:3, 3], directions.shape)
        rays = np.concatenate([origins, directions], axis=-1).astype(np.float32)
        return self._scene.cast_rays(self._tensor(rays), nthreads=0)["t_hit"].numpy()

    def distances(self, points_world: np.ndarray) -> np.ndarray:
        """Distance of points to the surface, world units."""
        return self._scene.compute_distance(self._tensor(points_world.astype(np.float32)), nthreads=0).numpy()
