"""The room of the sample scene: walls, window, shelf, table and chair. Metres, z up, the table at the origin.

Input: nothing. Output: meshes with the names of their materials.
Does not: hold what stands on the table.
"""

from __future__ import annotations

import numpy as np

from .sample_shapes import TURN, Mesh, box, join, lathe, quad, sheet, smooth_profile, tube

TABLE_Z = 0.74
"""Height of the table top."""

Parts = list[tuple[str, Mesh]]
"""Material name and mesh."""


def room() -> Parts:
    """Floor, walls, ceiling, window with curtains, pictures, a full shelf and a rug."""
    x0, x1, y0, y1, top = -2.0, 2.0, -2.6, 1.75, 2.6
    parts: Parts = [
        ("floor", quad((x0, y1, 0), (x1 - x0, 0, 0), (0, y0 - y1, 0), 1.6)),
        ("plaster", quad((x0, y0, top), (x1 - x0, 0, 0), (0, y1 - y0, 0), 2.0)),
        ("back wall", quad((x0, y1, top), (x1 - x0, 0, 0), (0, 0, -top), 1.05)),
        ("plaster", quad((x1, y0, top), (x0 - x1, 0, 0), (0, 0, -top), 2.0)),
        ("bricks", quad((x1, y1, top), (0, y0 - y1, 0), (0, 0, -top), 1.1)),
        ("rug", box((2.6, 1.9, 0.012)).placed((0.0, 0.1, 0.0), 3.0)),
        ("white paint", box((4.0, 0.02, 0.12)).placed((0, y1 - 0.01, 0)).mapped(8, 0.4)),
    ]
    wy0, wy1, wz0, wz1 = -0.35, 1.05, 0.95, 2.2  # the window's opening in the left wall
    for corner, right, down in (
        ((x0, y0, top), (0, wy0 - y0, 0), (0, 0, -top)),
        ((x0, wy1, top), (0, y1 - wy1, 0), (0, 0, -top)),
        ((x0, wy0, top), (0, wy1 - wy0, 0), (0, 0, wz1 - top)),
        ((x0, wy0, wz0), (0, wy1 - wy0, 0), (0, 0, -wz0)),
    ):
        parts.append(("plaster", quad(corner, right, down, 2.0)))
    deep = -0.16
    for corner, right, down in (
        ((x0 + deep, wy0, wz1), (-deep, 0, 0), (0, 0, wz0 - wz1)),
        ((x0 + deep, wy1, wz1), (-deep, 0, 0), (0, 0, wz0 - wz1)),
        ((x0 + deep, wy0, wz1), (-deep, 0, 0), (0, wy1 - wy0, 0)),
        ((x0 + deep, wy0, wz0), (-deep, 0, 0), (0, wy1 - wy0, 0)),
    ):
        parts.append(("white paint", quad(corner, right, down, 0.5)))
    parts.append(("sky", quad((x0 + deep, wy0, wz1), (0, wy1 - wy0, 0), (0, 0, wz0 - wz1))))
    middle = (wy0 + wy1) / 2
    for y in (wy0 + 0.03, middle, wy1 - 0.03):
        parts.append(("white paint", box((0.05, 0.06, wz1 - wz0)).placed((x0 + deep + 0.05, y, wz0)).mapped(0.1, 2)))
    for z in (wz0, wz0 + 0.62 * (wz1 - wz0), wz1 - 0.05):
        parts.append(("white paint", box((0.05, wy1 - wy0, 0.05)).placed((x0 + deep + 0.05, middle, z)).mapped(2, 0.1)))
    parts.append(("oak", box((0.24, wy1 - wy0 + 0.16, 0.035)).placed((x0 + 0.03, middle, wz0 - 0.035)).mapped(1, 0.3)))
    for y, width in ((wy0 - 0.12, 0.34), (wy1 + 0.14, 0.36)):
        u = np.linspace(0, 1, 90)
        fold = 0.045 * np.sin(TURN * 5.5 * u) + 0.012 * np.sin(TURN * 13 * u)
        grid = np.stack(
            [np.stack([x0 + 0.1 + fold * (0.6 + 0.4 * s), y + width * (u - 0.5), 0 * u + 2.35 - 1.95 * s], -1) for s in (0, 0.5, 1)]
        )
        parts.append(("curtain", sheet(grid).mapped(1.0, 4.0)))
    rod = np.array([[x0 + 0.1, wy0 - 0.35, 2.36], [x0 + 0.1, middle, 2.36], [x0 + 0.1, wy1 + 0.38, 2.36]])
    parts.append(("brass", tube(rod, 0.012)))
    for name, x, z, width, height in (
        ("poster", -0.62, 1.56, 0.62, 0.82),
        ("print", -1.42, 1.5, 0.42, 0.54),
        ("card", 0.06, 1.72, 0.3, 0.38),
    ):
        parts.append(("black wire", box((width + 0.05, 0.03, height + 0.05)).placed((x, y1 - 0.016, z - height / 2 - 0.025))))
        parts.append((name, quad((x - width / 2, y1 - 0.033, z + height / 2), (width, 0, 0), (0, 0, -height))))
    parts.append(("print", quad((x1 - 0.01, 0.75, 1.75), (0, -0.6, 0), (0, 0, -0.75))))
    parts += shelf(at=(1.15, y1 - 0.16))
    parts.append(("lamp", quad((-0.5, -1.7, top - 0.02), (1.0, 0, 0), (0, 1.0, 0))))
    return parts


def shelf(at: tuple[float, float]) -> Parts:
    """An oak shelf with four rows of books and a few pots."""
    x, y = at
    width, depth = 1.3, 0.3
    parts: Parts = [("oak", box((0.025, depth, 2.0)).placed((x + s * width / 2, y, 0)).mapped(0.3, 2)) for s in (-1, 1)]
    rng = np.random.default_rng(5)
    for level in range(6):
        z = 0.06 + 0.385 * level
        parts.append(("oak", box((width, depth, 0.025)).placed((x, y, z)).mapped(1, 0.2)))
        left, stop = x - width / 2 + 0.03, x + width / 2 - 0.05
        if level == 5:
            continue
        gap = rng.uniform(0.3, 0.8) * width + x - width / 2
        while left < stop:
            thick, tall = rng.uniform(0.022, 0.055), rng.uniform(0.2, 0.31)
            if abs(left - gap) < 0.1:
                left += 0.2
                continue
            spine = int(rng.integers(16))
            deep = rng.uniform(0.18, 0.24)
            book = box((thick, deep, tall), "-y +x -x +z").mapped(1 / 16.5, 1.0, (spine + 0.02) / 16)
            lean = rng.normal(0, 1.0) if rng.random() < 0.3 else 0.0
            parts.append(("spines", book.placed((left + thick / 2, y - 0.03 + rng.uniform(-0.03, 0.02), z + 0.025), lean)))
            left += thick + 0.003
        pot = smooth_profile([(0.045, 0.15), (0.03, 0.12), (0.07, 0.06), (0.05, 0.0), (0.0, 0.0)], 24)
        parts.append((("clay", "pottery", "glaze")[level % 3], lathe(pot, 40).placed((gap + 0.1, y - 0.04, z + 0.025))))
    parts.append(("parcel", box((0.3, 0.24, 0.22)).placed((x - 0.3, y, 2.01), 8)))
    parts.append(
        ("terrazzo", lathe([(0.0, 0.2), (0.1, 0.2), (0.11, 0.19), (0.08, 0.0), (0.0, 0.0)]).placed((x + 0.2, y, 2.01)).mapped(2, 1))
    )
    return parts


def furniture() -> Parts:
    """The table with its runner, and a slatted chair behind it."""
    parts: Parts = [
        ("table", box((1.52, 1.0, 0.035), "+z -z")),
        ("table", box((1.52, 1.0, 0.035), "+x -x +y -y").mapped(1.0, 0.05)),
        (
            "oak",
            join(*(box((w, d, 0.08)).placed((x, y, -0.08)) for w, d, x, y in ((1.3, 0.02, 0, -0.42), (1.3, 0.02, 0, 0.42)))).mapped(
                2, 0.1
            ),
        ),
    ]
    parts = [(name, mesh.placed((0, 0, TABLE_Z - 0.035))) for name, mesh in parts]
    for x in (-0.68, 0.68):
        for y in (-0.43, 0.43):
            parts.append(("oak", box((0.06, 0.06, TABLE_Z - 0.035)).placed((x, y, 0)).mapped(0.2, 1.5)))
    along = np.linspace(-0.62, 0.62, 80)
    v = np.linspace(-0.19, 0.19, 24)
    x, y = np.meshgrid(along, v)
    wave = 0.0016 * np.sin(26 * x + 9 * y) + 0.0012 * np.sin(47 * y - 13 * x) + 0.0035
    parts.append(("runner", sheet(np.stack([x, -y, wave + TABLE_Z], -1)).mapped(3.2, 1.0).placed((-0.02, -0.13, 0), -4.0)))
    legs = [box((0.035, 0.035, 0.45)).placed((x, y, 0)) for x in (-0.2, 0.2) for y in (-0.2, 0.2)]
    posts = [box((0.035, 0.03, 0.62)).placed((x, 0.2, 0.45), 0, -7) for x in (-0.2, 0.2)]
    rails = [box((0.4, 0.02, 0.055)).placed((0, 0.215 + 0.018 * k, 0.6 + 0.15 * k), 0, -7) for k in range(4)]
    spindles = [tube(np.array([[x, 0.21, 0.47], [x, 0.24, 0.75], [x, 0.28, 1.05]]), 0.008) for x in (-0.12, -0.04, 0.04, 0.12)]
    chair = join(
        *(mesh.mapped(0.2, 1.0) for mesh in legs + posts), *rails, *spindles, box((0.44, 0.44, 0.035)).placed((0, 0, 0.45))
    )
    parts.append(("rings", chair.placed((-0.12, 0.82, 0), 14)))
    return parts
