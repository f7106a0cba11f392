"""The sample scene: a still life on a table in a sunlit room. Metres, z up, the table at the origin.

Input: nothing. Output: a ``World`` for the tracer.
Does not: place cameras.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import sample_prints as prints
from . import sample_textures as textures
from .sample_room import furniture, room
from .sample_shapes import Mesh, join
from .sample_still_life import still_life
from .sample_tracer import World, build_tree

SEED = 7
"""Of every texture."""
TARGET = np.array([0.0, 0.06, 0.83])
"""The middle of the still life."""


@dataclass(frozen=True)
class Material:
    """How a surface answers light."""

    texture: str
    gloss: float = 0.0
    """Reflectance at normal incidence; 0 is matt, 0.04 varnish or glaze, above 0.3 metal."""
    roughness: float = 0.4
    bump_m: float = 0.0
    """Height between dark and light parts of the texture, metres."""
    emission: float = 0.0


MATERIALS = {
    "table": Material("table", 0.035, 0.35, 0.0004),
    "floor": Material("floor", 0.03, 0.45, 0.0006),
    "oak": Material("oak", 0.03, 0.5, 0.0003),
    "rings": Material("rings", 0.035, 0.4),
    "back wall": Material("wallpaper", 0.0, 1.0, 0.0004),
    "plaster": Material("plaster", 0.0, 1.0, 0.002),
    "bricks": Material("bricks", 0.0, 1.0, 0.009),
    "white paint": Material("paint", 0.03, 0.5, 0.0002),
    "rug": Material("rug", 0.0, 1.0, 0.002),
    "runner": Material("runner", 0.0, 1.0, 0.0012),
    "curtain": Material("curtain", 0.0, 1.0, 0.0008),
    "sky": Material("landscape", emission=2.2),
    "lamp": Material("paint", emission=5.0),
    "poster": Material("poster", 0.02, 0.6),
    "print": Material("print", 0.02, 0.6),
    "card": Material("card", 0.02, 0.5),
    "spines": Material("spines", 0.02, 0.6),
    "red book": Material("red book", 0.025, 0.5, 0.0003),
    "blue book": Material("blue book", 0.025, 0.5, 0.0003),
    "green book": Material("green book", 0.025, 0.5, 0.0003),
    "pages": Material("pages", 0.0, 1.0, 0.0005),
    "newspaper": Material("newspaper"),
    "parcel": Material("parcel", 0.01, 0.8, 0.0004),
    "tin": Material("tin", 0.04, 0.3),
    "globe": Material("globe", 0.04, 0.3),
    "pottery": Material("pottery", 0.05, 0.18),
    "glaze": Material("glaze", 0.05, 0.22, 0.0003),
    "clay": Material("clay", 0.0, 1.0, 0.0008),
    "marble": Material("marble", 0.05, 0.2),
    "terrazzo": Material("terrazzo", 0.04, 0.3),
    "paper cone": Material("stripes", 0.02, 0.6),
    "leaf": Material("leaf", 0.03, 0.5, 0.0004),
    "stem": Material("leaf"),
    "petal": Material("petal", 0.0, 1.0, 0.0006),
    "peel": Material("peel", 0.03, 0.45, 0.0009),
    "brass": Material("brass", 0.5, 0.45),
    "black wire": Material("black", 0.04, 0.4),
    "red ring": Material("red wood", 0.04, 0.35),
    "yellow ring": Material("yellow wood", 0.04, 0.35),
    "teal ring": Material("teal wood", 0.04, 0.35),
    "blue ring": Material("blue wood", 0.04, 0.35),
}


def paint_textures(seed: int) -> dict[str, np.ndarray]:
    """Paint every texture as ``SIZE SIZE 3`` uint8."""
    t, p = textures, prints

    def rng(index: int) -> np.random.Generator:
        return np.random.default_rng([seed, index])

    def stained(index: int, dark: str, light: str) -> np.ndarray:
        return t.palette(
            0.55 * t.spectral_noise(rng(index), 1.0, 0.06, 1.0) + 0.45 * t.spectral_noise(rng(index + 50), 1.2), [dark, light]
        )

    painted = {
        "table": t.planks(rng(1), ["#3d2413", "#7c4f2b", "#a8764a", "#c99a68"], 5, 1.0, 0.004),
        "floor": t.planks(rng(2), ["#4a3524", "#8a6b4c", "#b59673", "#cdb491"], 9, 0.5, 0.005),
        "oak": t.planks(rng(3), ["#6a4a2c", "#9c7449", "#c29a68"], 2, 1.0, 0.003),
        "rings": t.wood_rings(rng(4), ["#d9b582", "#b98a55", "#7a5028"]),
        "wallpaper": t.wallpaper(rng(5), "#b9c4b0", "#5f7d6b", "#c27b4b", 5),
        "plaster": t.plaster(rng(6), ["#b7a68c", "#d9cbb2", "#efe6d4"]),
        "bricks": t.bricks(rng(7), ["#5e2f24", "#96503a", "#b87256", "#cf9878"], 13, "#cbbfae"),
        "paint": t.palette(
            0.5 * t.spectral_noise(rng(8), 1.2) + 0.5 * t.spectral_noise(rng(9), 0.8, 0.05, 1.0), ["#d8d3c6", "#f4f1e8"]
        ),
        "rug": t.rug(rng(10), ["#27314f", "#9d3b34", "#d7b98a", "#466a68", "#e8dcc2"]),
        "runner": t.weave(rng(11), ["#ece0c6", "#3f6a78", "#ece0c6", "#c4703f"], 4),
        "curtain": t.weave(rng(12), ["#d9c7a4", "#c9ad7e", "#8f5a3c"], 6, 256),
        "landscape": p.landscape(rng(13)),
        "poster": p.poster(rng(14), ["#f0dfbf", "#d8593b", "#31506b", "#5f8a8b", "#c98b4a", "#22384e"], 0),
        "print": p.poster(rng(15), ["#ece4d2", "#24446b", "#d4813c", "#b03a3a", "#2f6b5c"], 1),
        "card": p.poster(rng(16), ["#f3e7c9", "#c2412f", "#2f6d7e", "#e0a63d", "#394b2c"], 0),
        "spines": p.spines(rng(17), ["#7d2b2b", "#27466b", "#2f5a44", "#c29138", "#4c3a5e", "#b9b09c", "#99532f"], 16),
        "red book": p.cover(rng(18), "#8c2f2b", "#ecd9a3", "#d7a54a", 0),
        "blue book": p.cover(rng(19), "#25406b", "#e9e2cc", "#7fa7c4", 1),
        "green book": p.cover(rng(20), "#2f5a44", "#eadfb9", "#b7c07a", 2),
        "pages": p.page_edges(rng(21)),
        "newspaper": p.newspaper(rng(22)),
        "parcel": p.cardboard(rng(23)),
        "tin": p.label(rng(24), "#e7d3a0", "#2a2c3a", "#b5402f"),
        "globe": p.globe(rng(25)),
        "pottery": p.painted_pottery(rng(26)),
        "glaze": t.speckle(rng(27), "#7aa3a0", "#2b4a4c", 0.36),
        "clay": t.palette(
            0.6 * t.spectral_noise(rng(28), 0.9, 0.2, 1.0) + 0.4 * t.spectral_noise(rng(29), 0.6), ["#7d3f26", "#c0704a"]
        ),
        "marble": t.marble(rng(30), ["#26302e", "#5d7a70", "#b9cabd", "#f2efe4"]),
        "terrazzo": t.terrazzo(rng(31), "#d9d3c7", ["#b0563c", "#2f4f57", "#e0b25a", "#7d8b86", "#3a2f2c"]),
        "stripes": p.stripes(rng(32), ["#c9472f", "#e9d9ae", "#2f6f7a"], 9, 4.0),
        "leaf": p.leaf(rng(33)),
        "petal": t.palette(t.spectral_noise(rng(34), 1.0), ["#b8385a", "#e88aa0", "#f6d3cf"]),
        "peel": p.peel(rng(35)),
        "brass": t.palette(t.spectral_noise(rng(36), 1.1), ["#9a7334", "#e0bb6c"]),
        "black": t.palette(t.spectral_noise(rng(37), 1.0), ["#1c1d20", "#3a3b3f"]),
        "red wood": stained(38, "#8f2a22", "#d6604a"),
        "yellow wood": stained(39, "#b98420", "#efc358"),
        "teal wood": stained(40, "#1f5f5c", "#57a39a"),
        "blue wood": stained(41, "#233f78", "#5f83bf"),
    }
    return {name: np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8) for name, image in painted.items()}


def build_world(painted: dict[str, np.ndarray] | None = None) -> World:
    """Gather the parts, set the lights and build the tree.

    Args:
        painted: square textures of one size by name; None paints those of the sample, which takes half a minute.
    """
    parts = room() + furniture() + still_life()
    painted = painted or paint_textures(SEED)
    names, images = list(MATERIALS), list(painted)
    mesh: Mesh = join(*(part for _, part in parts))
    material = np.concatenate([np.full(len(part.corners), names.index(name), dtype=np.int32) for name, part in parts])
    low, high = mesh.corners.min(axis=1), mesh.corners.max(axis=1)
    boxes, link, held, order = build_tree(low, high)
    window = np.array([[-2.14, -0.33, 0.97], [0.0, 1.36, 0.0], [0.0, 0.0, 1.21], [7.5, 8.6, 10.2]])
    ceiling = np.array([[-0.5, -1.7, 2.575], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [4.6, 3.9, 3.0]])
    to_sun = np.array([-0.80, 0.12, 0.50])
    return World(
        boxes=boxes,
        link=link,
        held=held,
        corners=np.ascontiguousarray(mesh.corners[order]),
        normals=np.ascontiguousarray(mesh.normals[order]),
        uv=np.ascontiguousarray(mesh.uv[order]),
        material=material[order],
        texture=np.array([images.index(m.texture) for m in MATERIALS.values()], dtype=np.int32),
        surface=np.array([[m.gloss, m.roughness, m.bump_m, m.emission] for m in MATERIALS.values()]),
        pixels=np.stack(list(painted.values())),
        lights=np.stack([window, ceiling]),
        sun=np.stack([to_sun / np.linalg.norm(to_sun), [6.5, 5.4, 4.0], [0.011, 0.0, 0.0]]),
        ambient=np.array([0.12, 0.115, 0.105]),
    )
