"""Triangle meshes of everyday shapes, built from two ideas: flat faces and bent sheets.

Input: sizes in metres. Output: ``Mesh`` with normals and texture coordinates per corner; z is up.
Does not: know about materials, light or cameras.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TURN = 2.0 * np.pi
Vector = Sequence[float] | np.ndarray
"""Three numbers."""


@dataclass(frozen=True)
class Mesh:
    """Triangles; normals may point to either side."""

    corners: np.ndarray
    """F 3 3, metres."""
    normals: np.ndarray
    """F 3 3, unit."""
    uv: np.ndarray
    """F 3 2; u to the right, v downwards in the texture, repeating."""

    def placed(self, at: Vector = (0, 0, 0), turn_deg: float = 0.0, tilt_deg: float = 0.0) -> Mesh:
        """Tilt about x, then turn about z, then move by ``at`` (metres)."""
        a, b = np.radians(turn_deg), np.radians(tilt_deg)
        turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
        tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        R = turn @ tilt
        return Mesh(self.corners @ R.T + np.asarray(at, dtype=float), self.normals @ R.T, self.uv)

    def mapped(self, scale_u: float = 1.0, scale_v: float = 1.0, shift_u: float = 0.0, shift_v: float = 0.0) -> Mesh:
        """Scale, then shift, the texture coordinates."""
        return Mesh(self.corners, self.normals, self.uv * [scale_u, scale_v] + [shift_u, shift_v])


def join(*meshes: Mesh) -> Mesh:
    return Mesh(*(np.concatenate([getattr(mesh, name) for mesh in meshes]) for name in ("corners", "normals", "uv")))


def quad(corner: Vector, right: Vector, down: Vector, uv_m: float | None = None) -> Mesh:
    """Span a rectangle from its top-left corner.

    Args:
        uv_m: metres that one repeat of the texture covers; None stretches the texture over the rectangle.
    """
    o, r, d = (np.asarray(x, dtype=float) for x in (corner, right, down))
    points = np.array([o, o + r, o + r + d, o + d])
    u, v = (1.0, 1.0) if uv_m is None else (np.linalg.norm(r) / uv_m, np.linalg.norm(d) / uv_m)
    uv = np.array([[0, 0], [u, 0], [u, v], [0, v]])
    normal = np.cross(d, r)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    return Mesh(points[faces], np.broadcast_to(normal / np.linalg.norm(normal), (2, 3, 3)).copy(), uv[faces])


def box(size: Vector, faces: str = "+x -x +y -y +z -z", uv_m: float | None = None) -> Mesh:
    """Build chosen faces of a box that stands on z = 0, centred in x and y; pictures on the sides stand upright."""
    x, y, z = (float(s) for s in size)
    made = {
        "-y": quad((-x / 2, -y / 2, z), (x, 0, 0), (0, 0, -z), uv_m),
        "+y": quad((x / 2, y / 2, z), (-x, 0, 0), (0, 0, -z), uv_m),
        "+x": quad((x / 2, -y / 2, z), (0, y, 0), (0, 0, -z), uv_m),
        "-x": quad((-x / 2, y / 2, z), (0, -y, 0), (0, 0, -z), uv_m),
        "+z": quad((-x / 2, y / 2, z), (x, 0, 0), (0, -y, 0), uv_m),
        "-z": quad((-x / 2, -y / 2, 0), (x, 0, 0), (0, y, 0), uv_m),
    }
    return join(*(made[face] for face in faces.split()))


def sheet(grid: np.ndarray, closed_u: bool = False, closed_v: bool = False, along_v: np.ndarray | None = None) -> Mesh:
    """Bend a sheet through a grid of points ``R C 3`` with smooth normals; rows run along v, columns along u.

    Args:
        closed_u: the last column repeats the first.
        closed_v: the last row repeats the first.
        along_v: texture coordinate of each row; None spaces the rows evenly.
    """
    rows, columns, _ = grid.shape

    def slope(axis: int, closed: bool) -> np.ndarray:
        if not closed:
            return np.gradient(grid, axis=axis)
        inner = np.delete(grid, -1, axis=axis)
        d = np.roll(inner, -1, axis) - np.roll(inner, 1, axis)
        return np.concatenate([d, np.take(d, [0], axis=axis)], axis=axis)

    normals = np.cross(slope(1, closed_u), slope(0, closed_v))
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    for row, neighbour in ((0, 1), (rows - 1, rows - 2)):  # a pole has no direction of its own
        if length[row].max() < 1e-9 * max(length.max(), 1e-30):
            normals[row], length[row] = normals[neighbour].mean(axis=0), np.linalg.norm(normals[neighbour].mean(axis=0))
    normals = normals / np.maximum(length, 1e-30)
    v, u = np.meshgrid(np.linspace(0, 1, rows) if along_v is None else along_v, np.linspace(0, 1, columns), indexing="ij")
    uv = np.stack([u, v], axis=-1)
    i, j = (x.ravel() for x in np.meshgrid(np.arange(rows - 1), np.arange(columns - 1), indexing="ij"))
    faces = np.concatenate([np.stack([(i, j), (i, j + 1), (i + 1, j + 1)]), np.stack([(i, j), (i + 1, j + 1), (i + 1, j)])], axis=2)
    at = (faces[:, 0].T, faces[:, 1].T)
    mesh = Mesh(grid[at], normals[at], uv[at])
    area = np.linalg.norm(np.cross(mesh.corners[:, 1] - mesh.corners[:, 0], mesh.corners[:, 2] - mesh.corners[:, 0]), axis=1)
    keep = area > 1e-14
    return Mesh(mesh.corners[keep], mesh.normals[keep], mesh.uv[keep])


def lathe(profile: Sequence[tuple[float, float]], segments: int = 64) -> Mesh:
    """Turn a profile of (radius, height) pairs, from top to bottom, about z; v follows the length of the profile."""
    radius, height = np.array(profile, dtype=float).T
    angle = np.linspace(0, TURN, segments + 1)
    across = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=-1)
    grid = radius[:, None, None] * across + height[:, None, None] * np.array([0.0, 0.0, 1.0])
    grid[:, -1] = grid[:, 0]
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(radius), np.diff(height)))])
    return sheet(grid, closed_u=True, along_v=length / length[-1])


def smooth_profile(profile: Sequence[tuple[float, float]], count: int = 40) -> list[tuple[float, float]]:
    """Resample a profile with a Catmull-Rom spline."""
    points = np.array([profile[0], *profile, profile[-1]], dtype=float)
    at = np.linspace(0, len(profile) - 1 - 1e-9, count)
    i, t = np.floor(at).astype(int), (at % 1.0)[:, None]
    a, b, c, d = (points[i + k] for k in range(4))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return [(max(float(r), 0.0), float(h)) for r, h in curve]


def sphere(radius: float, segments: int = 64) -> Mesh:
    """Ball about the origin."""
    angle = np.linspace(0, np.pi, segments // 2 + 1)
    return lathe([(radius * np.sin(a), radius * np.cos(a)) for a in angle], segments)


def disc(radius: float, height: float, segments: int = 64) -> Mesh:
    """Flat coin of a given thickness on z = 0 with a slightly rounded rim."""
    bevel = min(height, radius) * 0.15
    corner = [(radius - bevel, height), (radius, height - bevel), (radius, bevel), (radius - bevel, 0.0)]
    return lathe([(0.0, height), (radius - 2 * bevel, height), *corner, (0.0, 0.0)], segments)


def tube(path: np.ndarray, radius: float | np.ndarray, sides: int = 8, closed: bool = False) -> Mesh:
    """Sweep a circle along a path ``P 3``; a closed path repeats its first point at the end.

    The frame follows the path by removing from the previous normal what lies along the new tangent.
    """
    tangent = np.gradient(path, axis=0)
    if closed:
        tangent[0] = tangent[-1] = path[1] - path[-2]
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    normal = np.cross(tangent[0], [0.0, 0.0, 1.0] if abs(tangent[0][2]) < 0.9 else [1.0, 0.0, 0.0])
    rings = []
    angle = np.linspace(0, TURN, sides + 1)
    for point, along, r in zip(path, tangent, np.broadcast_to(radius, len(path)), strict=True):
        normal = normal - along * (normal @ along)
        normal = normal / np.linalg.norm(normal)
        side = np.cross(along, normal)
        rings.append(point + r * (np.cos(angle)[:, None] * normal + np.sin(angle)[:, None] * side))
    grid = np.stack(rings)
    grid[:, -1] = grid[:, 0]
    return sheet(grid, closed_u=True, closed_v=False)


def ring(radius: float, thickness: float, segments: int = 64, sides: int = 16) -> Mesh:
    """Torus in the plane z = 0."""
    around, across = np.meshgrid(np.linspace(0, TURN, segments + 1), np.linspace(0, TURN, sides + 1), indexing="ij")
    r = radius + thickness * np.cos(across)
    grid = np.stack([r * np.cos(around), r * np.sin(around), thickness * np.sin(across)], axis=-1)
    grid[-1], grid[:, -1] = grid[0], grid[:, 0]
    return sheet(grid, closed_u=True, closed_v=True)


def blade(root: Vector, direction_deg: float, length: float, width: float, droop: float) -> Mesh:
    """Grow an arching leaf: it rises from ``root``, leans to ``direction_deg`` and bends under its weight."""
    t = np.linspace(0, 1, 14)
    a = np.radians(direction_deg)
    out = length * (0.25 * t + droop * t**2)
    up = length * (t - 0.75 * droop * t**2.4)
    middle = np.asarray(root) + np.stack([out * np.cos(a), out * np.sin(a), up], axis=1)
    half = 0.5 * width * np.sqrt(np.maximum(np.sin(np.pi * (0.1 + 0.9 * t)), 0.0))
    side = np.array([-np.sin(a), np.cos(a), 0.0])
    keel = np.array([0.0, 0.0, 0.18])  # the middle rib lies a little lower than the rims
    columns = [middle + half[:, None] * (s * side + abs(s) * keel) for s in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    return sheet(np.stack(columns, axis=1)).mapped(1.0, 2.0)
