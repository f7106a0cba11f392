"""Colour for a mesh from the photos: a texture, or better vertex colours.

Input: a ``Mesh``, photos with pinhole cameras. Output: the mesh with UVs and a baked texture.
Does not: change the shape, except that vertices are doubled where the texture is cut.

Every texel takes the weighted mean of the photos that see it: unoccluded, facing, near; weights fall to zero at the border
of a photo. Photos are brought to a common exposure first, one gain per colour, from the texels they share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry import sample_image
from .tsdf import Mesh, Rays, face_normals, vertex_normals

OCCLUSION = 0.02
"""A point is hidden when the mesh lies closer by more than this share of its depth."""
SHARPNESS = 4.0
"""Power of the facing and nearness weights; higher takes fewer photos per texel."""
GAIN_POINTS, GAIN_SAMPLES = 200_000, 20_000
STRETCH = 400_000
"""Points coloured at a time: what a 2048 texture needs at once would be gigabytes."""
BORDER = 0.06
"""Share of the photo's width over which its weight fades in."""


@dataclass(frozen=True, kw_only=True)
class TexturePhoto:
    """One photo that colours the mesh."""

    image: Float[Tensor, "H W 3"]
    """sRGB in [0, 1], undistorted."""
    K: np.ndarray
    T_world_cam: np.ndarray


def unwrap(mesh: Mesh) -> Mesh:
    """Cut the surface into charts and lay them out (xatlas)."""
    import xatlas

    of, faces, uvs = xatlas.parametrize(mesh.vertices, mesh.faces.astype(np.uint32))
    return replace(
        mesh, vertices=mesh.vertices[of], colors=mesh.colors[of], faces=faces.astype(np.int32), uvs=uvs.astype(np.float32)
    )


def bake(mesh: Mesh, photos: Sequence[TexturePhoto], side: int) -> Mesh:
    """Bake a texture of ``side`` pixels; texels no photo sees take the vertex colours."""
    assert mesh.uvs is not None
    texel, face, weights = rasterize_uvs(mesh.uvs, mesh.faces, side)
    corners = mesh.faces[face]
    points = np.einsum("nk,nkc->nc", weights, mesh.vertices[corners]).astype(np.float32)
    normals = face_normals(mesh)[face]
    colors = blend(mesh, points, normals, np.einsum("nk,nkc->nc", weights, mesh.colors[corners]), photos)
    texture = np.zeros((side * side, 3), dtype=np.float32)
    texture[texel] = colors
    filled = np.zeros(side * side, dtype=bool)
    filled[texel] = True
    spread = bleed(texture.reshape(side, side, 3), filled.reshape(side, side))
    return replace(mesh, texture=np.rint(np.clip(spread, 0, 1) * 255).astype(np.uint8))


def color_vertices(mesh: Mesh, photos: Sequence[TexturePhoto]) -> Mesh:
    """Colour every vertex from the photos."""
    normals = vertex_normals(mesh)
    return replace(mesh, colors=blend(mesh, mesh.vertices, normals, mesh.colors, photos).astype(np.float32))


def blend(mesh: Mesh, points: np.ndarray, normals: np.ndarray, fallback: np.ndarray, photos: Sequence[TexturePhoto]) -> np.ndarray:
    """Colour points on the surface from all photos that see them, a stretch of points at a time."""
    rays = Rays(mesh)
    depths = [rays.depths(photo.K, photo.T_world_cam, photo.image.shape[1], photo.image.shape[0]) for photo in photos]
    some = slice(None, None, max(1, len(points) // GAIN_POINTS))
    gains = balance([look_up(points[some], normals[some], *pair) for pair in zip(photos, depths, strict=True)], fallback[some])
    colors = np.empty((len(points), 3), dtype=np.float32)
    for start in range(0, len(points), STRETCH):
        part = slice(start, start + STRETCH)
        total, weight = np.zeros((len(points[part]), 3)), np.zeros(len(points[part]))
        for photo, depth, gain in zip(photos, depths, gains, strict=True):
            seen, strength = look_up(points[part], normals[part], photo, depth)
            total += strength[:, None] * seen * gain
            weight += strength
        colors[part] = np.where(weight[:, None] > 1e-8, total / np.maximum(weight, 1e-8)[:, None], fallback[part])
    return colors


def look_up(points: np.ndarray, normals: np.ndarray, photo: TexturePhoto, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour and weight of every point in one photo; weight 0 where it is hidden, averted or outside.

    Args:
        depth: z-depth of the mesh in the photo's camera, H W.
    """
    height, width = photo.image.shape[:2]
    offset = points - photo.T_world_cam[:3, 3]
    cam = offset @ photo.T_world_cam[:3, :3]
    z = np.maximum(cam[:, 2], 1e-9)
    pixels = cam[:, :2] / z[:, None] * np.array([photo.K[0, 0], photo.K[1, 1]]) + photo.K[:2, 2]
    column = np.clip(pixels[:, 0], 0, width - 1).astype(np.int64)
    row = np.clip(pixels[:, 1], 0, height - 1).astype(np.int64)
    range_ = np.linalg.norm(offset, axis=1)
    facing = np.clip(-(offset * normals).sum(axis=1) / np.maximum(range_, 1e-12), 0.0, 1.0)
    margin = np.minimum.reduce([pixels[:, 0], width - pixels[:, 0], pixels[:, 1], height - pixels[:, 1]])
    fade = np.clip(margin / (BORDER * width), 0.0, 1.0)
    visible = (cam[:, 2] > 1e-6) & (margin > 0) & (depth[row, column] > cam[:, 2] * (1 - OCCLUSION))
    near = photo.K[0, 0] / np.maximum(range_, 1e-12)  # pixels per world unit: photos of finer grain weigh more
    strength = np.where(visible, fade * facing**SHARPNESS * near**2, 0.0)
    colors = sample_image(photo.image, torch.from_numpy(pixels.astype(np.float32))).numpy()
    return colors, strength


def balance(seen: Sequence[tuple[np.ndarray, np.ndarray]], reference: np.ndarray) -> list[np.ndarray]:
    """One gain per photo and colour that brings it to the surface's common brightness.

    The common brightness is that of the rendered scene, which already averages all photos; the median ratio is deaf to the
    texels where a photo shows something else.
    """
    gains = []
    for colors, strength in seen:
        at = np.nonzero(strength > 0)[0]
        at = at[:: max(1, len(at) // GAIN_SAMPLES)]
        usable = at[(colors[at].min(axis=1) > 0.05) & (reference[at].min(axis=1) > 0.05)]
        ratio = np.median(reference[usable] / colors[usable], axis=0) if len(usable) >= 50 else np.ones(3)
        gains.append(np.clip(ratio, 0.5, 2.0))
    return gains


def rasterize_uvs(uvs: np.ndarray, faces: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the texels of every triangle: texel index (row 0 on top), its face and barycentric weights.

    Triangles are processed together, one texel offset of their boxes at a time, in groups of like size.
    """
    corners = uvs[faces] * np.array([side, -side]) + np.array([0, side])
    start = np.floor(corners.min(axis=1)).astype(np.int64)
    extent = np.ceil(corners.max(axis=1)).astype(np.int64) - start + 1
    parts = []
    order = np.argsort(extent.max(axis=1), kind="stable")
    longest = extent.max(axis=1)[order]
    limits = np.unique(np.concatenate([[0], np.searchsorted(longest, [3, 5, 9, 17, 33, 65, 129], side="left"), [len(order)]]))
    for low, high in pairwise(limits.tolist()):
        group = order[low:high]
        span = int(longest[high - 1])
        for batch in np.array_split(group, max(1, len(group) * span * span // 4_000_000)):
            parts.append(_cover(corners[batch], start[batch], span, side, batch))
    texel, face, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    texel, first = np.unique(texel, return_index=True)
    return texel, face[first], weights[first]


def _cover(corners: np.ndarray, start: np.ndarray, span: int, side: int, face: np.ndarray) -> tuple[np.ndarray, ...]:
    """Texels of a batch of triangles whose boxes are at most ``span`` texels wide."""
    steps = np.stack(np.meshgrid(np.arange(span), np.arange(span)), axis=-1).reshape(1, -1, 2)
    centre = start[:, None] + steps + 0.5
    a, b, c = (corners[:, i, None] for i in range(3))

    def area(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        return (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1]) - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0])

    whole = area(a, b, c)
    whole = np.where(np.abs(whole) < 1e-12, 1e-12, whole)
    weights = np.stack([area(b, c, centre), area(c, a, centre), area(a, b, centre)], axis=-1) / whole[..., None]
    inside = (weights > -1e-3).all(axis=-1) & (centre >= 0).all(axis=-1) & (centre < side).all(axis=-1)
    which, step = np.nonzero(inside)
    at = np.floor(centre[which, step]).astype(np.int64)
    return at[:, 1] * side + at[:, 0], face[which], np.clip(weights[which, step], 0, 1).astype(np.float32)


def bleed(texture: np.ndarray, filled: np.ndarray, rounds: int = 4) -> np.ndarray:
    """Grow the charts by a few texels, so that filtering across their border finds colour."""
    texture, filled = texture.copy(), filled.copy()
    for _ in range(rounds):
        total, count = np.zeros_like(texture), np.zeros(filled.shape, dtype=np.float32)
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            neighbour = np.roll(filled, step, axis=axis)
            total += np.roll(texture, step, axis=axis) * neighbour[..., None]
            count += neighbour
        grown = ~filled & (count > 0)
        texture[grown] = total[grown] / count[grown][:, None]
        filled |= grown
    return texture
