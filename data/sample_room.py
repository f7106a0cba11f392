"""The room of the sample scene: walls, window, shelf, table and chair. Metres, z up, the table at the origin.

Input: nothing. Output: meshes with the names of their materials.
Does not: hold what stands on the table.
"""

from __future__ import annotations

import numpy as np

from .sample_shapes import TURN, Mesh, blade, box, join, lathe, quad, sheet, smooth_profile, tube

TABLE_Z = 0.74
"""Height of the table top."""
TABLE_SIZE = (1.9, 1.3)
"""Metres along x and y."""
WALL_X, WALL_Y = -1.3, 1.4
"""The left wall and the back wall, which meet in the corner that the photos show."""
WINDOW_Y, WINDOW_Z = (0.0, 1.16), (0.86, 2.1)
"""The window's opening in the left wall."""
DEEP = 0.17
"""Depth of the window's niche."""
OUTSIDE_X = WALL_X - 2.4
"""Where the picture of the garden hangs in the air."""

Parts = list[tuple[str, Mesh]]
"""Material name and mesh."""


def room() -> Parts:
    """Floor, ceiling, walls with a painted dado, window with a curtain, the view, pictures."""
    x1, y0, top = 2.2, -2.6, 2.5
    parts: Parts = [
        ("floor", quad((WALL_X, WALL_Y, 0), (x1 - WALL_X, 0, 0), (0, y0 - WALL_Y, 0), 1.6)),
        ("ceiling", quad((WALL_X, y0, top), (x1 - WALL_X, 0, 0), (0, WALL_Y - y0, 0), 2.0)),
        ("plaster", quad((WALL_X, WALL_Y, top), (x1 - WALL_X, 0, 0), (0, 0, 0.92 - top), 2.0)),
        ("dado", quad((WALL_X, WALL_Y, 0.92), (x1 - WALL_X, 0, 0), (0, 0, -0.92), 1.3)),
        ("plaster", quad((x1, WALL_Y, top), (0, y0 - WALL_Y, 0), (0, 0, -top), 2.0)),
        ("plaster", quad((x1, y0, top), (WALL_X - x1, 0, 0), (0, 0, -top), 2.0)),
        ("dado", box((x1 - WALL_X, 0.022, 0.05)).placed(((x1 + WALL_X) / 2, WALL_Y - 0.01, 0.9)).mapped(3, 0.05)),
    ]
    for x in np.arange(WALL_X + 0.2, x1, 0.46):
        parts.append(("dado", box((0.07, 0.014, 0.8)).placed((x, WALL_Y - 0.006, 0.1)).mapped(0.06, 1)))
    (wy0, wy1), (wz0, wz1) = WINDOW_Y, WINDOW_Z
    for corner, right, down in (
        ((WALL_X, y0, top), (0, wy0 - y0, 0), (0, 0, -top)),
        ((WALL_X, wy1, top), (0, WALL_Y - wy1, 0), (0, 0, -top)),
        ((WALL_X, wy0, top), (0, wy1 - wy0, 0), (0, 0, wz1 - top)),
        ((WALL_X, wy0, wz0), (0, wy1 - wy0, 0), (0, 0, -wz0)),
    ):
        parts.append(("plaster", quad(corner, right, down, 2.0)))
    for x, z, width, height, name in ((-0.7, 1.52, 0.5, 0.64, "poster"), (-0.13, 1.5, 0.34, 0.44, "print")):
        parts.append(
            ("oak", box((width + 0.06, 0.03, height + 0.06)).placed((x, WALL_Y - 0.016, z - height / 2 - 0.03)).mapped(1, 0.1))
        )
        parts.append((name, quad((x - width / 2, WALL_Y - 0.033, z + height / 2), (width, 0, 0), (0, 0, -height))))
    return parts + window() + shelf((0.72, WALL_Y - 0.13, 1.2))


def window() -> Parts:
    """Niche, frame with bars, sill, curtain, and the garden behind."""
    (y0, y1), (z0, z1) = WINDOW_Y, WINDOW_Z
    outer, middle = WALL_X - DEEP, (y0 + y1) / 2
    parts: Parts = [
        ("white paint", quad(corner, right, down, 0.8))
        for corner, right, down in (
            ((outer, y0, z1), (DEEP, 0, 0), (0, 0, z0 - z1)),
            ((outer, y1, z1), (DEEP, 0, 0), (0, 0, z0 - z1)),
            ((outer, y0, z1), (DEEP, 0, 0), (0, y1 - y0, 0)),
        )
    ]
    for y, thick in ((y0 + 0.03, 0.06), (middle, 0.045), (y1 - 0.03, 0.06)):
        parts.append(("white paint", box((0.05, thick, z1 - z0)).placed((outer + 0.05, y, z0)).mapped(0.1, 1)))
    for z, thick in ((z0, 0.06), (z0 + 0.6, 0.035), (z1 - 0.06, 0.06)):
        parts.append(("white paint", box((0.04, y1 - y0, thick)).placed((outer + 0.05, middle, z)).mapped(1, 0.1)))
    parts.append(
        ("oak", box((DEEP + 0.09, y1 - y0 + 0.12, 0.035)).placed((outer + (DEEP + 0.09) / 2, middle, z0 - 0.033)).mapped(1, 0.3))
    )
    for y, along in ((-1.6, 5.6), (-1.6, -5.6), (9.6, -5.6)):  # mirrored on both sides, for looks from far left and right
        parts.append(("garden", quad((OUTSIDE_X, y, 3.1), (0, along, 0), (0, 0, -3.0))))
    u = np.linspace(0, 1, 90)
    fold = 0.04 * np.sin(TURN * 4.5 * u) + 0.012 * np.sin(TURN * 11 * u + 1)
    rows = [(s, 0.6 + 0.4 * s, y1 + 0.08 + (0.34 - 0.06 * s) * (u - 0.5)) for s in (0.0, 0.5, 1.0)]
    grid = np.stack([np.stack([WALL_X + 0.09 + fold * loose, y, 0 * u + 2.3 - 2.0 * s], -1) for s, loose, y in rows])
    parts.append(("curtain", sheet(grid).mapped(1.0, 4.0)))
    rod = np.array([[WALL_X + 0.09, y, 2.31] for y in (y0 - 0.2, middle, WALL_Y - 0.02)])
    return [*parts, ("brass", tube(rod, 0.012))]


def shelf(at: tuple[float, float, float]) -> Parts:
    """A board on two brackets with books, a jug, a bowl and a hanging plant."""
    x, y, z = at
    width, depth, thick = 1.2, 0.24, 0.032
    top = z + thick
    parts: Parts = [("oak", box((width, depth, thick)).placed((x, y, z)).mapped(1.2, 0.2))]
    for side in (-0.42, 0.42):
        bracket = np.array([[x + side, y + 0.11, z - 0.15], [x + side, y + 0.02, z - 0.12], [x + side, y - 0.07, z - 0.005]])
        parts.append(("black wire", tube(bracket, 0.007)))
    rng = np.random.default_rng(5)
    left = x - 0.56
    for index in range(9):
        wide, tall, deep = rng.uniform(0.03, 0.055), rng.uniform(0.19, 0.27), rng.uniform(0.15, 0.19)
        book = box((wide, deep, tall), "-y +x -x +z").mapped(1 / 16.5, 1.0, (index + 0.02) / 16)
        lean = 0.0 if index < 8 else 9.0
        parts.append(("spines", Mesh(*_leaned(book, lean)).placed((left + wide / 2 + 0.002 * lean, y - 0.01, top))))
        left += wide + 0.003
    jug = smooth_profile([(0.042, 0.21), (0.034, 0.17), (0.07, 0.09), (0.055, 0.01), (0.05, 0.0)], 30)
    bowl = smooth_profile([(0.1, 0.08), (0.085, 0.04), (0.04, 0.008), (0.04, 0.0)], 24)
    parts.append(("clay", lathe([*jug, (0.0, 0.0)], 56).placed((x + 0.1, y, top))))
    parts.append(("glaze", lathe([*bowl, (0.0, 0.0)], 56).placed((x + 0.29, y - 0.01, top))))
    pot = [(0.0, 0.1), (0.062, 0.1), (0.066, 0.098), (0.05, 0.0), (0.0, 0.0)]
    parts.append(("pottery", lathe(pot, 56).placed((x + 0.48, y - 0.01, top))))
    for index in range(34):
        turn = index * 137.5 + rng.uniform(-15, 15)
        root = np.array([x + 0.48, y - 0.01, top + 0.09]) + 0.03 * np.array([np.cos(turn), np.sin(turn), 0])
        size, droop = rng.uniform(0.1, 0.2), rng.uniform(0.5, 1.5)
        parts.append(("leaf", blade(root, turn, size, rng.uniform(0.018, 0.03), droop)))
    return parts


def _leaned(mesh: Mesh, degrees: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tip a mesh about y, so that a book leans to its left."""
    a = np.radians(degrees)
    R = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    return mesh.corners @ R.T, mesh.normals @ R.T, mesh.uv


def furniture() -> Parts:
    """The table with its runner, and a chair behind it."""
    length, width = TABLE_SIZE
    parts: Parts = [
        ("table", box((length, width, 0.035), "+z -z").placed((0, 0, TABLE_Z - 0.035))),
        ("table", box((length, width, 0.035), "+x -x +y -y").mapped(1.0, 0.05).placed((0, 0, TABLE_Z - 0.035))),
    ]
    for x in (-0.86, 0.86):
        for y in (-0.56, 0.56):
            parts.append(("oak", box((0.06, 0.06, TABLE_Z - 0.035)).placed((x, y, 0)).mapped(0.2, 1.5)))
    x, y = np.meshgrid(np.linspace(-0.8, 0.8, 120), np.linspace(-0.21, 0.21, 32))
    wave = 0.0016 * np.sin(26 * x + 9 * y) + 0.0012 * np.sin(47 * y - 13 * x) + 0.0035
    parts.append(("runner", sheet(np.stack([x, -y, wave + TABLE_Z], -1)).mapped(1.0, 1.0).placed((0.0, -0.1, 0), 6.0)))
    legs = [box((0.035, 0.035, 0.45)).placed((x, y, 0)) for x in (-0.2, 0.2) for y in (-0.2, 0.2)]
    posts = [tube(np.array([[x, 0.2, 0.45], [x, 0.24, 0.75], [1.06 * x, 0.3, 1.06]]), 0.016, 12) for x in (-0.2, 0.2)]
    rails = [sheet(_bent_rail(z)).mapped(1.0, 0.1) for z in (0.68, 0.83, 0.98)]
    chair = join(*(mesh.mapped(0.2, 1.0) for mesh in legs + posts), *rails, box((0.44, 0.44, 0.035)).placed((0, 0, 0.45)))
    return [*parts, ("rings", chair.placed((0.3, 0.84, 0), -12))]


def _bent_rail(z: float) -> np.ndarray:
    """A slat of a chair's back as a closed ring of points, bent to fit a back."""
    x = np.linspace(-0.21, 0.21, 24)
    y = 0.24 + 0.35 * (z - 0.72) + 0.03 * (1 - (x / 0.21) ** 2)
    around = np.linspace(0, TURN, 17)
    rows = [np.stack([x, y + 0.009 * np.cos(a), 0 * x + z + 0.032 * np.sin(a)], -1) for a in around]
    return np.stack(rows)
