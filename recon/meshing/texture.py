"""Colour for a mesh from the photos: a texture, or better vertex colours.

Input: a ``Mesh``, photos with pinhole cameras. Output: the mesh with UVs and a baked texture.
Does not: change the shape, except that vertices are doubled where the texture is cut.

Every texel takes the weighted mean of the photos that see it: unoccluded, facing, near; weights fall to zero at the border
of a photo. Photos are brought to a common exposure first, one gain per colour, from the texels they share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..polishing.workers import over_rows
from .coloring import add_photo, cover, grow
from .tsdf import Mesh, Rays, face_normals, vertex_normals

DEPTH_SIDE = 400
"""Longest side of the pictures that tell what hides what."""
GAIN_POINTS, LEAST_SAMPLES = 40_000, 50
"""Points that exposure is balanced from, and how many of them a photo must show."""
LEAST_WEIGHT = 1e-8
CHART_FACES = 500
"""Triangles that are cut into charts at a time."""
BLEED_TEXELS = 4


@dataclass(frozen=True, kw_only=True)
class TexturePhoto:
    """One photo that colours the mesh."""

    image: np.ndarray
    """H W 3 uint8 sRGB, undistorted."""
    K: np.ndarray
    T_world_cam: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Lens:
    """A photo and what of the mesh stands in it."""

    photo: TexturePhoto
    depth: np.ndarray
    """z-depth of the mesh, a smaller picture of the same view; infinite where there is none."""


def unwrap(mesh: Mesh) -> Mesh:
    """Cut the surface into charts and lay them out (xatlas), a neighbourhood at a time: the time that finding charts takes grows
    faster than the number of triangles, and few charts are that large."""
    import xatlas

    atlas, vertices = xatlas.Atlas(), []
    for part in neighbourhoods(mesh, CHART_FACES):
        used, faces = np.unique(mesh.faces[part], return_inverse=True)
        vertices.append(used)
        atlas.add_mesh(mesh.vertices[used], faces.reshape(-1, 3).astype(np.uint32))
    atlas.generate(xatlas.ChartOptions(), xatlas.PackOptions())
    found = [atlas[index] for index in range(len(vertices))]
    of = np.concatenate([used[taken] for used, (taken, _, _) in zip(vertices, found, strict=True)])
    start = np.cumsum([0, *(len(taken) for taken, _, _ in found)])
    faces = np.concatenate([faces + at for at, (_, faces, _) in zip(start[:-1].tolist(), found, strict=True)])
    uvs = np.concatenate([uv for _, _, uv in found]).astype(np.float32)
    return replace(mesh, vertices=mesh.vertices[of], colors=mesh.colors[of], faces=faces.astype(np.int32), uvs=uvs)


def neighbourhoods(mesh: Mesh, most: int) -> list[np.ndarray]:
    """Faces in groups of at most ``most`` that lie together: halves of halves along the longest side."""
    middles = mesh.vertices[mesh.faces].mean(axis=1)
    groups, waiting = [], [np.arange(len(mesh.faces))]
    while waiting:
        group = waiting.pop()
        if len(group) <= most:
            groups.append(group)
            continue
        axis = int(np.ptp(middles[group], axis=0).argmax())
        ordered = group[np.argsort(middles[group, axis], kind="stable")]
        waiting += [ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]]
    return groups


def bake(mesh: Mesh, photos: Sequence[TexturePhoto], side: int) -> Mesh:
    """Bake a texture of ``side`` pixels; texels no photo sees take the vertex colours."""
    assert mesh.uvs is not None
    texel, face, weights = rasterize_uvs(mesh.uvs, mesh.faces, side)
    corners = mesh.faces[face]
    points = np.einsum("nk,nkc->nc", weights, mesh.vertices[corners]).astype(np.float32)
    normals = face_normals(mesh)[face]
    fallback = np.einsum("nk,nkc->nc", weights, mesh.colors[corners]).astype(np.float32)
    colors = blend(mesh, points, normals, fallback, photos)
    texture = np.zeros((side * side, 3), dtype=np.float32)
    texture[texel] = colors
    filled = np.zeros(side * side, dtype=bool)
    filled[texel] = True
    spread = texture.reshape(side, side, 3)
    for _ in range(BLEED_TEXELS):  # so that filtering across the border of a chart finds colour
        spread, filled = grow(spread, filled.reshape(side, side))
    return replace(mesh, texture=np.rint(np.clip(spread, 0, 1) * 255).astype(np.uint8))


def color_vertices(mesh: Mesh, photos: Sequence[TexturePhoto]) -> Mesh:
    """Colour every vertex from the photos."""
    normals = vertex_normals(mesh)
    return replace(mesh, colors=blend(mesh, mesh.vertices, normals, mesh.colors, photos).astype(np.float32))


def blend(mesh: Mesh, points: np.ndarray, normals: np.ndarray, fallback: np.ndarray, photos: Sequence[TexturePhoto]) -> np.ndarray:
    """Colour points on the surface from all photos that see them."""
    rays = Rays(mesh)
    lenses = [_lens(photo, rays) for photo in photos]
    some = slice(None, None, max(1, len(points) // GAIN_POINTS))
    gains = balance([look_up(points[some], normals[some], lens) for lens in lenses], fallback[some])
    total, weight = np.zeros((len(points), 3), np.float32), np.zeros(len(points), np.float32)
    for lens, gain in zip(lenses, gains, strict=True):
        _add(points, normals, lens, gain, total, weight)
    return np.where(weight[:, None] > LEAST_WEIGHT, total / np.maximum(weight, LEAST_WEIGHT)[:, None], fallback)


def _lens(photo: TexturePhoto, rays: Rays) -> Lens:
    """A photo with the depth of the mesh in it, of at most ``DEPTH_SIDE`` pixels: rays are dear."""
    height, width = photo.image.shape[:2]
    shrink = min(1.0, DEPTH_SIDE / max(height, width))
    small = (max(2, round(width * shrink)), max(2, round(height * shrink)))
    K = photo.K * np.array([[small[0] / width], [small[1] / height], [1.0]])
    return Lens(photo=photo, depth=rays.depths(K, photo.T_world_cam, *small))


def look_up(points: np.ndarray, normals: np.ndarray, lens: Lens) -> tuple[np.ndarray, np.ndarray]:
    """Colour and weight of every point in one photo; weight 0 where it is hidden, averted or outside."""
    total, weight = np.zeros((len(points), 3), np.float32), np.zeros(len(points), np.float32)
    _add(points, normals, lens, np.ones(3), total, weight)
    return total / np.maximum(weight, LEAST_WEIGHT)[:, None], weight


def _add(points: np.ndarray, normals: np.ndarray, lens: Lens, gain: np.ndarray, total: np.ndarray, weight: np.ndarray) -> None:
    """Add what one photo shows of the points to weighted sums of colour."""
    photo = lens.photo
    R_world_cam, eye = np.ascontiguousarray(photo.T_world_cam[:3, :3]), np.ascontiguousarray(photo.T_world_cam[:3, 3])
    gains = np.asarray(gain, np.float32) / np.float32(255)
    over_rows(add_photo, len(points), points, normals, photo.image, lens.depth, photo.K, R_world_cam, eye, gains, total, weight)


def balance(seen: Sequence[tuple[np.ndarray, np.ndarray]], reference: np.ndarray) -> list[np.ndarray]:
    """One gain per photo and colour that brings it to the surface's common brightness.

    The common brightness is that of the rendered scene, which already averages all photos; the median ratio is deaf to the
    texels where a photo shows something else.
    """
    gains = []
    for colors, strength in seen:
        usable = (strength > 0) & (colors.min(axis=1) > 0.05) & (reference.min(axis=1) > 0.05)
        enough = int(usable.sum()) >= LEAST_SAMPLES
        ratio = np.median(reference[usable] / colors[usable], axis=0) if enough else np.ones(3)
        gains.append(np.clip(ratio, 0.5, 2.0))
    return gains


def rasterize_uvs(uvs: np.ndarray, faces: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the texels of every triangle: texel index (row 0 on top), its face and barycentric weights."""
    corners = uvs[faces].astype(np.float64) * np.array([side, -side]) + np.array([0, side])
    face, weights = np.full((side, side), -1, np.int32), np.zeros((side, side, 3), np.float32)
    cover(corners, face, weights)
    texel = np.nonzero(face.ravel() >= 0)[0]
    return texel, face.ravel()[texel], weights.reshape(-1, 3)[texel]
