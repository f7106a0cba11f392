"""The sample scene: a still life on a table by a sunlit window. Metres, z up, the table at the origin.

Input: nothing. Output: parts, materials, textures and lights, as plain data.
Does not: place cameras or draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import sample_prints as prints
from . import sample_textures as textures
from .sample_room import DEEP, WALL_X, WINDOW_Y, WINDOW_Z, Parts, furniture, room
from .sample_still_life import still_life

SEED = 7
"""Of every texture."""
TARGET = np.array([0.0, 0.04, 0.89])
"""The middle of the still life."""


@dataclass(frozen=True)
class Material:
    """How a surface answers light."""

    texture: str
    gloss: float = 0.0
    """Reflectance at normal incidence; 0 is matt, 0.04 varnish or glaze, above 0.3 metal."""
    roughness: float = 0.5
    bump_m: float = 0.0
    """Height between dark and light parts of the texture, metres."""
    emission: float = 0.0
    """Radiance of a white texel."""
    shines_through: float = 0.0
    """Share of the light that passes to the other side."""


@dataclass(frozen=True)
class Light:
    """A rectangle that shines along ``towards``."""

    center: tuple[float, float, float]
    towards: tuple[float, float, float]
    size: tuple[float, float]
    watts: float
    color: tuple[float, float, float]


MATERIALS = {
    "table": Material("table", 0.03, 0.5, 0.0003),
    "floor": Material("floor", 0.03, 0.5, 0.0006),
    "oak": Material("oak", 0.03, 0.5, 0.0003),
    "rings": Material("rings", 0.03, 0.5),
    "plaster": Material("plaster", 0.0, 1.0, 0.001),
    "ceiling": Material("paint"),
    "dado": Material("dado", 0.025, 0.6),
    "white paint": Material("paint", 0.03, 0.5),
    "runner": Material("runner", 0.0, 1.0, 0.0005),
    "curtain": Material("curtain", 0.0, 1.0, 0.0003, shines_through=0.45),
    "garden": Material("garden", emission=2.0),
    "bulb": Material("paint", emission=6.0),
    "poster": Material("poster", 0.01, 0.8),
    "print": Material("print", 0.01, 0.8),
    "card": Material("card", 0.02, 0.5),
    "spines": Material("spines", 0.02, 0.6),
    "red book": Material("red book", 0.02, 0.6, 0.0002),
    "blue book": Material("blue book", 0.02, 0.6, 0.0002),
    "green book": Material("green book", 0.02, 0.6, 0.0002),
    "pages": Material("pages", 0.0, 1.0, 0.0003),
    "open pages": Material("open pages"),
    "parcel": Material("parcel", 0.01, 0.8, 0.0003),
    "tin": Material("tin", 0.04, 0.35),
    "globe": Material("globe", 0.04, 0.3),
    "pottery": Material("pottery", 0.045, 0.22),
    "glaze": Material("glaze", 0.045, 0.25, 0.0002),
    "stoneware": Material("stoneware", 0.04, 0.3, 0.0001),
    "clay": Material("clay", 0.0, 1.0, 0.0005),
    "marble": Material("marble", 0.045, 0.22),
    "terrazzo": Material("terrazzo", 0.04, 0.35),
    "leaf": Material("leaf", 0.03, 0.5, 0.0002, shines_through=0.3),
    "stem": Material("leaf", 0.03, 0.5),
    "petal": Material("petal", 0.0, 1.0, 0.0003, shines_through=0.25),
    "peel": Material("peel", 0.035, 0.4, 0.0006),
    "pear": Material("pear", 0.035, 0.4, 0.0002),
    "lemon": Material("lemon", 0.035, 0.4, 0.0005),
    "wax": Material("wax", 0.03, 0.4, shines_through=0.2),
    "brass": Material("brass", 0.5, 0.4),
    "black wire": Material("black", 0.04, 0.4),
    "shade": Material("red wood", 0.03, 0.5, shines_through=0.35),
    "red ring": Material("red wood", 0.04, 0.4),
    "yellow ring": Material("yellow wood", 0.04, 0.4),
    "teal ring": Material("teal wood", 0.04, 0.4),
    "blue ring": Material("blue wood", 0.04, 0.4),
}

_MIDDLE_Y, _MIDDLE_Z = sum(WINDOW_Y) / 2, sum(WINDOW_Z) / 2
LIGHTS = [
    Light(
        (WALL_X - DEEP - 0.06, _MIDDLE_Y, _MIDDLE_Z),
        (1, 0, 0),
        (WINDOW_Y[1] - WINDOW_Y[0], WINDOW_Z[1] - WINDOW_Z[0]),
        85.0,
        (0.86, 0.94, 1.0),
    ),
    Light((0.9, -1.6, 2.45), (-0.1, 0.2, -1), (1.6, 1.2), 30.0, (1.0, 0.93, 0.83)),
]
"""The sky through the window, and a pale ceiling behind the photographer."""
SUN_TOWARDS, SUN_WATTS_M2, SUN_COLOR, SUN_RAD = (0.80, -0.26, -0.52), 5.5, (1.0, 0.84, 0.62), 0.05
"""It shines through the window; its disc is a little wider than the real one, for softer shadows."""


def parts() -> Parts:
    """Everything there is to see."""
    return room() + furniture() + still_life()


def paint_textures(seed: int = SEED) -> dict[str, np.ndarray]:
    """Paint every texture as ``SIZE SIZE 3`` uint8, which takes half a minute."""
    t, p = textures, prints

    def rng(index: int) -> np.random.Generator:
        return np.random.default_rng([seed, index])

    def stained(index: int, dark: str, light: str) -> np.ndarray:
        return t.palette(
            0.6 * t.spectral_noise(rng(index), 1.3, 0.06, 1.0) + 0.4 * t.spectral_noise(rng(index + 50), 1.5), [dark, light]
        )

    def cloudy(index: int, power: float, stops: list[str]) -> np.ndarray:
        return t.palette(t.spectral_noise(rng(index), power), stops)

    painted = {
        "table": t.planks(rng(1), ["#4a2d19", "#7f5431", "#a3754c", "#bf9365"], 6, 1.0, 0.003),
        "floor": t.planks(rng(2), ["#4a3524", "#8a6b4c", "#b59673", "#cdb491"], 9, 0.5, 0.005),
        "oak": t.planks(rng(3), ["#6a4a2c", "#9c7449", "#c29a68"], 2, 1.0, 0.003),
        "rings": t.wood_rings(rng(4), ["#d9b582", "#c09562", "#93683c"]),
        "plaster": t.plaster(rng(6), ["#c2ad8a", "#d9c8a6", "#ebdfc6"]),
        "paint": cloudy(8, 1.5, ["#d8d3c6", "#f4f1e8"]),
        "dado": t.palette(
            0.6 * t.spectral_noise(rng(5), 1.7) + 0.4 * t.spectral_noise(rng(9), 1.3, 1.0, 0.1), ["#4f6f6a", "#7d9c93"]
        ),
        "runner": t.linen(rng(11), "#ece2cb", ["#3f6a78", "#c4703f", "#8a3b34"]),
        "curtain": t.weave(rng(12), ["#e6d8bb", "#dccaa6", "#c9a987"], 6, 256),
        "garden": p.garden(rng(13)),
        "poster": p.poster(rng(14), ["#f0dfbf", "#d8593b", "#31506b", "#5f8a8b", "#c98b4a", "#22384e"], 0),
        "print": p.poster(rng(15), ["#ece4d2", "#24446b", "#d4813c", "#b03a3a", "#2f6b5c"], 1),
        "card": p.poster(rng(16), ["#f3e7c9", "#c2412f", "#2f6d7e", "#e0a63d", "#394b2c"], 0),
        "spines": p.spines(rng(17), ["#7d2b2b", "#27466b", "#2f5a44", "#c29138", "#4c3a5e", "#b9b09c", "#99532f"], 16),
        "red book": p.cover(rng(18), "#8c2f2b", "#ecd9a3", "#d7a54a", 0),
        "blue book": p.cover(rng(19), "#25406b", "#e9e2cc", "#7fa7c4", 1),
        "green book": p.cover(rng(20), "#2f5a44", "#eadfb9", "#b7c07a", 2),
        "pages": p.page_edges(rng(21)),
        "open pages": p.open_pages(rng(22)),
        "parcel": p.cardboard(rng(23)),
        "tin": p.label(rng(24), "#e7d3a0", "#2a2c3a", "#b5402f"),
        "globe": p.globe(rng(25)),
        "pottery": p.painted_pottery(rng(26)),
        "glaze": t.speckle(rng(27), "#7aa3a0", "#4b7476", 0.36),
        "stoneware": t.speckle(rng(32), "#d9cdb4", "#8a6f52", 0.25),
        "clay": t.palette(
            0.7 * t.spectral_noise(rng(28), 1.2, 0.2, 1.0) + 0.3 * t.spectral_noise(rng(29), 1.0), ["#8a482d", "#c0704a"]
        ),
        "marble": t.marble(rng(30), ["#26302e", "#5d7a70", "#b9cabd", "#f2efe4"]),
        "terrazzo": t.terrazzo(rng(31), "#d9d3c7", ["#b0563c", "#2f4f57", "#e0b25a", "#7d8b86", "#3a2f2c"]),
        "leaf": p.leaf(rng(33)),
        "petal": cloudy(34, 1.3, ["#b8385a", "#e88aa0", "#f6d3cf"]),
        "peel": p.fruit(rng(35), ["#b8500e", "#e88a1a", "#f6b544"], "#7d4413"),
        "pear": p.fruit(rng(42), ["#8a8f2f", "#b9b244", "#d8a24a", "#b8573a"], "#6b5a24"),
        "lemon": p.fruit(rng(43), ["#d9a81e", "#efcb3a", "#f6e07a"], "#b98a1c"),
        "wax": cloudy(44, 1.8, ["#e6d9bd", "#f6eed9"]),
        "brass": cloudy(36, 1.4, ["#9a7334", "#e0bb6c"]),
        "black": cloudy(37, 1.3, ["#1c1d20", "#3a3b3f"]),
        "red wood": stained(38, "#8f2a22", "#d6604a"),
        "yellow wood": stained(39, "#b98420", "#efc358"),
        "teal wood": stained(40, "#1f5f5c", "#57a39a"),
        "blue wood": stained(41, "#233f78", "#5f83bf"),
    }
    return {name: np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8) for name, image in painted.items()}
