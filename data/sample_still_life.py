"""What stands on the table of the sample scene. Metres, z up, the middle of the table top at the origin until placed.

Input: nothing. Output: meshes with the names of their materials.
Does not: hold the room.
"""

from __future__ import annotations

import numpy as np

from .sample_room import TABLE_Z, Parts
from .sample_shapes import TURN, Mesh, blade, box, disc, join, lathe, quad, ring, sheet, smooth_profile, sphere, tube

FACING_DEG = 24.0
"""The still life faces this side of the table, degrees about z."""


def placed(parts: Parts, at: tuple[float, float, float], turn_deg: float = 0.0) -> Parts:
    """Turn and move every part."""
    return [(name, mesh.placed(at, turn_deg)) for name, mesh in parts]


def plant() -> Parts:
    """A painted vase with arching leaves and wiry stems of small flowers."""
    vase = smooth_profile(
        [(0.052, 0.25), (0.04, 0.225), (0.048, 0.19), (0.088, 0.12), (0.075, 0.05), (0.048, 0.012), (0.052, 0.0)], 48
    )
    parts: Parts = [("pottery", lathe([*vase, (0.0, 0.0)], 72)), ("clay", disc(0.045, 0.01).placed((0, 0, 0.212)))]
    rng = np.random.default_rng(11)
    for index in range(26):
        turn = index * 137.5 + rng.uniform(-15, 15)
        root = 0.02 * np.array([np.cos(np.radians(turn)), np.sin(np.radians(turn)), 0]) + [0, 0, 0.22]
        parts.append(("leaf", blade(root, turn, rng.uniform(0.2, 0.34), rng.uniform(0.012, 0.022), rng.uniform(0.3, 0.95))))
    for index in range(9):
        turn = np.radians(index * 40 + rng.uniform(-10, 10))
        t = np.linspace(0, 1, 16)
        reach, tall = rng.uniform(0.05, 0.15), rng.uniform(0.26, 0.4)
        out = reach * t**1.6 + 0.006 * np.sin(9 * t + index)
        path = np.stack([out * np.cos(turn), out * np.sin(turn), 0.21 + tall * t], -1)
        parts.append(("stem", tube(path, 0.0022 - 0.0008 * t, 6)))
        tip = path[-1]
        parts.append(("petal", sphere(0.011, 16).placed(tip)))
        for k in range(5):
            a = TURN * k / 5 + index
            parts.append(("petal", sphere(0.0085, 12).placed(tip + 0.014 * np.array([np.cos(a), np.sin(a), 0.25]))))
    return parts


def books() -> Parts:
    """Three books in a pile with a marble ball in a brass ring on top, and an open gap between covers and pages."""
    parts: Parts = []
    z = 0.0
    for name, size, turn in (
        ("blue book", (0.26, 0.19, 0.045), 8),
        ("green book", (0.235, 0.175, 0.034), -9),
        ("red book", (0.2, 0.15, 0.04), 17),
    ):
        x, y, thick = size
        board = 0.004
        for at in (0.0, thick - board):
            parts.append((name, box((x, y, board), "+z -z +x -x +y -y").placed((0, 0, z + at), turn)))
        parts.append(
            (
                name,
                box((board, y, thick), "-x +x")
                .mapped(0.25, 1.0)
                .placed((-np.cos(np.radians(turn)) * x / 2, -np.sin(np.radians(turn)) * x / 2, z), turn),
            )
        )
        parts.append(("pages", box((x - 0.012, y - 0.012, thick - 2 * board), "+x -y +y").placed((0, 0, z + board), turn)))
        z += thick + 0.0005
    parts.append(("brass", ring(0.026, 0.005).placed((0.01, 0.0, z + 0.005))))
    parts.append(("marble", sphere(0.047).placed((0.01, 0.0, z + 0.0465), 40, 25)))
    return parts


def mug() -> Parts:
    """A glazed mug with a handle, on a terrazzo coaster."""
    outer = [
        (0.0386, 0.095),
        (0.0405, 0.096),
        (0.042, 0.0945),
        (0.0425, 0.07),
        (0.0425, 0.03),
        (0.041, 0.008),
        (0.036, 0.001),
        (0.0, 0.0),
    ]
    inner = [(0.0, 0.006), (0.034, 0.008), (0.038, 0.02), (0.0385, 0.07), (0.0386, 0.095)]
    angle = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 24)
    handle = np.stack([0.04 + 0.032 * np.cos(angle), 0 * angle, 0.05 + 0.03 * np.sin(angle)], -1)
    cup = join(lathe(outer, 72).mapped(3, 1), lathe(inner, 72).mapped(3, 1), tube(handle, 0.0052, 12).mapped(0.2, 1))
    tea = lathe([(0.0, 0.082), (0.0385, 0.082)], 48)
    coaster = disc(0.058, 0.008)
    return [("glaze", cup.placed((0, 0, 0.0085))), ("table", tea.mapped(0.1, 0.1)), ("terrazzo", coaster.mapped(2, 0.6))]


def globe() -> Parts:
    """A tilted globe in a thin brass meridian on a turned foot."""
    foot = smooth_profile(
        [(0.0, 0.075), (0.008, 0.07), (0.011, 0.05), (0.018, 0.03), (0.05, 0.018), (0.066, 0.008), (0.066, 0.0)], 30
    )
    middle = (0.0, 0.0, 0.195)
    axis = np.array([[0, 0, -0.122], [0, 0, 0.128]])
    return [
        ("rings", lathe([*foot, (0.0, 0.0)], 64)),
        ("globe", sphere(0.105, 96).placed(middle, 35, 23)),
        ("brass", ring(0.118, 0.0032, 96, 8).placed((0, 0, 0), 0, 90).placed(middle, 125)),
        ("brass", tube(axis, 0.003).placed((0, 0, 0), 35, 23).placed(middle)),
    ]


def fruit_bowl() -> Parts:
    """A bowl of thin wire with citrus in it."""
    parts: Parts = []
    profile = np.array([(0.055, 0.004), (0.085, 0.018), (0.108, 0.045), (0.122, 0.078)])
    for index in range(22):
        a = TURN * index / 22
        path = np.stack([profile[:, 0] * np.cos(a), profile[:, 0] * np.sin(a), profile[:, 1]], -1)
        parts.append(("black wire", tube(path, 0.0015, 6)))
    for radius, z, thick in ((0.055, 0.003, 0.0025), (0.108, 0.045, 0.0015), (0.122, 0.078, 0.003)):
        parts.append(("black wire", ring(radius, thick, 72, 8).placed((0, 0, z))))
    for index, (x, y, z, r) in enumerate(
        ((0.045, 0.01, 0.052, 0.038), (-0.035, 0.035, 0.05, 0.036), (-0.02, -0.045, 0.051, 0.037), (0.012, 0.005, 0.107, 0.038))
    ):
        parts.append(("peel", sphere(r, 48).mapped(2, 1, 0.31 * index).placed((x, y, z), 70 * index, 40 * index)))
        parts.append(("leaf", sphere(0.004, 10).placed((x, y, z + r))))
    return parts


def ring_tower() -> Parts:
    """Wooden rings on a peg, with one that lies beside it."""
    parts: Parts = [("rings", disc(0.056, 0.014)), ("rings", lathe([(0.0, 0.15), (0.008, 0.147), (0.008, 0.0)], 24))]
    z = 0.014
    for name, radius, thick in (
        ("blue ring", 0.036, 0.0165),
        ("teal ring", 0.031, 0.015),
        ("yellow ring", 0.027, 0.0135),
        ("red ring", 0.022, 0.012),
    ):
        parts.append((name, ring(radius, thick, 64, 24).mapped(1, 3).placed((0, 0, z + thick))))
        z += 1.85 * thick
    parts.append(("red ring", sphere(0.014, 24).placed((0, 0, 0.152))))
    return parts


def blocks() -> Parts:
    """Three toy blocks with printed sides."""
    side = 0.052
    return [
        ("print", box((side, side, side)).mapped(0.25, 0.2, 0.27, 0.23).placed((0, 0, 0), 12)),
        ("card", box((side, side, side)).mapped(0.5, 0.5, 0.2, 0.2).placed((0.066, 0.012, 0), -25)),
        ("tin", box((side, side, side)).mapped(0.25, 0.4, 0.13, 0.3).placed((0.028, 0.006, side), 38)),
    ]


def desk_lamp() -> Parts:
    """A lamp with two thin arms and a conical shade."""
    elbow, tip = np.array([0.1, 0.03, 0.27]), np.array([-0.11, -0.03, 0.44])
    shade = [(0.012, 0.075), (0.02, 0.07), (0.07, 0.0), (0.068, 0.0), (0.018, 0.066)]
    return [
        ("black wire", disc(0.065, 0.014)),
        ("brass", tube(np.array([[0, 0, 0.012], elbow]), 0.0042)),
        ("brass", tube(np.array([elbow, tip]), 0.0038)),
        ("black wire", sphere(0.009, 16).placed(elbow)),
        ("shade", lathe(shade, 48).mapped(2, 1).placed((0, 0, -0.05), 15, -18).placed(tip)),
        ("bulb", sphere(0.022, 24).placed(tip - np.array([0, 0, 0.035]))),
    ]


def teapot() -> Parts:
    """A stoneware pot with a spout, a looped handle and a lid."""
    body = smooth_profile([(0.034, 0.118), (0.05, 0.112), (0.078, 0.07), (0.072, 0.03), (0.045, 0.004), (0.044, 0.0)], 36)
    lid = smooth_profile([(0.0, 0.15), (0.011, 0.146), (0.007, 0.134), (0.03, 0.124), (0.036, 0.116)], 24)
    t = np.linspace(0, 1, 20)
    spout = np.stack([0.06 + 0.075 * t, 0 * t, 0.045 + 0.085 * t**1.7], -1)
    a = np.linspace(-0.42 * np.pi, 0.5 * np.pi, 28)
    handle = np.stack([-0.062 - 0.045 * np.cos(a), 0 * a, 0.068 + 0.038 * np.sin(a)], -1)
    return [
        ("stoneware", lathe([*body, (0.0, 0.0)], 80)),
        ("stoneware", lathe(lid, 48)),
        ("stoneware", tube(spout, 0.019 - 0.0095 * t, 16)),
        ("stoneware", tube(handle, 0.0065, 12)),
    ]


def candle() -> Parts:
    """A wax candle in a turned brass stick."""
    stick = smooth_profile(
        [(0.02, 0.135), (0.012, 0.125), (0.016, 0.1), (0.007, 0.085), (0.009, 0.05), (0.02, 0.03), (0.048, 0.012), (0.052, 0.0)], 60
    )
    wax = [(0.0, 0.305), (0.0095, 0.303), (0.0105, 0.3), (0.011, 0.13)]
    wick = np.array([[0, 0, 0.303], [0.001, 0, 0.309], [0.003, 0, 0.315]])
    return [("brass", lathe([*stick, (0.0, 0.0)], 56)), ("wax", lathe(wax, 32)), ("black wire", tube(wick, 0.0012))]


def pears() -> Parts:
    """Two pears, one on its side, and a lemon."""
    pear = smooth_profile(
        [(0.0, 0.1), (0.012, 0.098), (0.018, 0.085), (0.022, 0.07), (0.037, 0.042), (0.036, 0.02), (0.018, 0.004), (0.0, 0.005)], 40
    )
    stem = tube(np.array([[0, 0, 0.098], [0.002, 0, 0.11], [0.007, 0, 0.12]]), 0.0022)
    lemon = smooth_profile(
        [(0.0, 0.048), (0.006, 0.044), (0.024, 0.022), (0.029, 0.0), (0.024, -0.022), (0.006, -0.042), (0.0, -0.046)], 36
    )
    parts: Parts = [("pear", lathe(pear, 56)), ("stem", stem)]
    parts += [(name, mesh.placed((0, 0, 0), 0, 78).placed((0.085, -0.055, 0.036), 62)) for name, mesh in parts[:2]]
    return [*parts, ("lemon", lathe(lemon, 48).placed((0, 0, 0), 0, 84).placed((0.1, 0.04, 0.028), -35))]


def open_book() -> Parts:
    """A book that lies open, its pages arched, with a ribbon."""
    u = np.linspace(-1, 1, 81)
    arch = 0.004 + 0.026 * (np.abs(u) ** 0.55) * (1 - 0.62 * np.abs(u) ** 1.5)
    across = 0.155 * np.sign(u) * np.abs(u)
    rows = [np.stack([across, 0 * u + y, arch], -1) for y in np.linspace(0.105, -0.105, 8)]
    under = box((0.33, 0.225, 0.004)).mapped(1, 1)
    t = np.linspace(0, 1, 24)
    half = np.array([0.004, 0.0, 0.0])
    ribbon = np.stack([0.02 + 0.03 * t**2, -0.09 - 0.085 * t, 0.013 - 0.008 * t], -1)
    return [
        ("red book", under),
        ("open pages", sheet(np.stack(rows))),
        ("red ring", sheet(np.stack([ribbon - half, ribbon + half]))),
    ]


def spoon() -> Parts:
    """A wooden spoon."""
    t = np.linspace(0, 1, 30)
    handle = np.stack([0.2 * t, 0.012 * np.sin(2.2 * t), 0.012 + 0.004 * t], -1)
    bowl = sphere(0.024, 32)
    return [("rings", tube(handle, 0.0052, 10).mapped(0.2, 1)), ("rings", _squashed(bowl).placed((-0.022, 0, 0.013)))]


def _squashed(mesh: Mesh) -> Mesh:
    """Flatten a ball into the bowl of a spoon."""
    stretch = np.array([1.35, 1.0, 0.42])
    normals = mesh.normals / stretch
    return Mesh(mesh.corners * stretch, normals / np.linalg.norm(normals, axis=-1, keepdims=True), mesh.uv)


def still_life() -> Parts:
    """Arrange everything on the table, facing a person who stands at its near corner."""
    tin = lathe([(0.0, 0.13), (0.036, 0.13), (0.0375, 0.1285), (0.0375, 0.122), (0.0365, 0.121), (0.0365, 0.001), (0.0, 0.0)], 72)
    parcel = box((0.24, 0.17, 0.14))
    card = quad((-0.075, 0, 0.1), (0.15, 0, 0), (0, 0, -0.1))
    arranged = [
        placed(books(), (-0.38, 0.16, 0.0), 24),
        placed(plant(), (-0.02, 0.3, 0.0)),
        placed(globe(), (0.4, 0.3, 0.0), 20),
        placed(fruit_bowl(), (0.26, -0.05, 0.004)),
        placed(teapot(), (-0.13, -0.04, 0.005), 195),
        placed(mug(), (-0.01, -0.22, 0.005), -40),
        placed(ring_tower(), (-0.42, -0.16, 0.002)),
        placed(blocks(), (0.47, -0.11, 0.001), 10),
        placed(candle(), (0.17, 0.2, 0.001)),
        placed(pears(), (-0.27, -0.3, 0.001), -20),
        placed(open_book(), (0.22, -0.4, 0.001), 12),
        placed(spoon(), (-0.2, -0.43, 0.001), -14),
        placed(desk_lamp(), (0.62, 0.34, 0.0), 10),
        [("tin", tin.placed((0.11, 0.06, 0), 160))],
        [("parcel", parcel.placed((-0.32, 0.42, 0), -12))],
        [("print", card.placed((-0.17, 0.13, 0.005), 15, -18))],
    ]
    turned = placed([part for group in arranged for part in group], (0.0, 0.0, 0.0), FACING_DEG)
    return placed(turned, (-0.03, 0.0, TABLE_Z))
