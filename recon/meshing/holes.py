"""Close small holes of a mesh, but only where cameras say that a surface is there.

Input: ``Mesh``, what every camera saw (``Sight``). Output: the mesh with some of its holes closed.
Does not: close large holes, or guess what no camera saw.

A hole is a ring of edges with a triangle on one side only. It is closed by a fan about its middle. The fan stays when it
continues the surface around it (over the rim of a loose piece it would lie back on the piece), when cameras saw an opaque
surface where it lies, and hardly any saw through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .tsdf import Mesh, vertex_normals

MOST_EDGES = 60
"""Rings of more edges are borders of the scene or real openings."""
NEAR_VOXELS = 3.0
"""A surface is seen where a fan lies when it differs by no more than this."""
LEAST_AGREEMENT = 0.2
"""Cosine between the fan and the surface around it."""
SEEN_THROUGH = 0.25
"""Cameras that see through a fan, over those that see a surface there, above which it is dropped."""


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What one camera saw."""

    seen: np.ndarray
    """H W z-depth of what is opaque; infinite where nothing stands, 0 where it is not known."""
    K: np.ndarray
    T_world_cam: np.ndarray


def close_holes(mesh: Mesh, sights: Sequence[Sight], voxel: float) -> Mesh:
    """Close the holes that cameras saw a surface in.

    Args:
        voxel: grid size of the mesh, world units.
    """
    rings = [ring for ring in boundary_rings(mesh.faces) if 3 <= len(ring) <= MOST_EDGES]
    normals = vertex_normals(mesh)
    rings = [ring for ring in rings if _continues(mesh.vertices[ring], normals[ring])]
    if not rings:
        return mesh
    middles = np.stack([mesh.vertices[ring].mean(axis=0) for ring in rings])
    halfway = [(mesh.vertices[ring] + middle) / 2 for ring, middle in zip(rings, middles, strict=True)]
    probes = np.concatenate([np.concatenate([middle[None], points]) for middle, points in zip(middles, halfway, strict=True)])
    owner = np.repeat(np.arange(len(rings)), [len(ring) + 1 for ring in rings])
    surface, through = count_evidence(probes, sights, NEAR_VOXELS * voxel)
    supported = (surface > 0) & (through <= SEEN_THROUGH * surface)
    kept = np.bincount(owner, weights=~supported, minlength=len(rings)) == 0
    closed = [ring for ring, keep in zip(rings, kept, strict=True) if keep]
    if not closed:
        return mesh
    at = len(mesh.vertices) + np.arange(len(closed))
    fans = [
        np.stack([np.roll(ring, -1), ring, np.full(len(ring), middle)], axis=1) for ring, middle in zip(closed, at, strict=True)
    ]
    return replace(
        mesh,
        vertices=np.concatenate([mesh.vertices, middles[kept].astype(np.float32)]),
        colors=np.concatenate([mesh.colors, np.stack([mesh.colors[ring].mean(axis=0) for ring in closed])]).astype(np.float32),
        faces=np.concatenate([mesh.faces, *fans]).astype(np.int32),
    )


def boundary_rings(faces: np.ndarray) -> list[np.ndarray]:
    """Vertices of every ring of border edges, in the direction of the triangles; rings that touch themselves are left out."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    count = int(faces.max()) + 1
    forth, back = edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0]
    border = edges[~np.isin(forth, back)]
    twice = np.bincount(border[:, 0], minlength=count) > 1
    following = dict(border[~twice[border[:, 0]]].tolist())
    rings = []
    while following:
        first, at = following.popitem()
        ring = [first]
        while at != first and at in following:
            ring.append(at)
            at = following.pop(at)
        if at == first:
            rings.append(np.array(ring))
    return rings


def _continues(corners: np.ndarray, normals: np.ndarray) -> bool:
    """True when the fan over a ring faces the way of the surface around it."""
    spokes = corners - corners.mean(axis=0)
    fan, around = np.cross(np.roll(spokes, -1, axis=0), spokes).sum(axis=0), normals.sum(axis=0)
    return float(fan @ around) > LEAST_AGREEMENT * float(np.linalg.norm(fan) * np.linalg.norm(around))


def count_evidence(points: np.ndarray, sights: Sequence[Sight], near: float) -> tuple[np.ndarray, np.ndarray]:
    """For every point, the cameras that see a surface within ``near`` of it, and those that see through it."""
    surface, through = np.zeros(len(points), dtype=np.int64), np.zeros(len(points), dtype=np.int64)
    for sight in sights:
        height, width = sight.seen.shape
        cam = (points - sight.T_world_cam[:3, 3]) @ sight.T_world_cam[:3, :3]
        z = np.maximum(cam[:, 2], 1e-9)
        column = np.floor(cam[:, 0] / z * sight.K[0, 0] + sight.K[0, 2]).astype(np.int64)
        row = np.floor(cam[:, 1] / z * sight.K[1, 1] + sight.K[1, 2]).astype(np.int64)
        inside = (cam[:, 2] > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        depth = np.where(inside, sight.seen[row.clip(0, height - 1), column.clip(0, width - 1)], 0.0)
        surface += (depth > 0) & (np.abs(depth - z) <= near)
        through += depth > z + near
    return surface, through
