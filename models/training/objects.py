"""Primitives of procedural worlds: what one thing looks like, its shape, and where it stands.

Input: a random generator, shares of ingredients, textures to choose from. Output: rows of primitives.
Does not: arrange worlds; ``scenes`` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from .ingredients import WorldConfig
from .paths import euler, upright
from .shapes import BOX, CARD, CONE, CUT, CYLINDER, ELLIPSOID, FIELDS, PARAMETERS, RELIEF, ROOM, SUPERQUADRIC, TORUS

__all__ = ["Objects"]

Array = np.ndarray
WIRE = -1
"""What is drawn for a shape, and becomes a thin cylinder."""
OLD_SHAPES = {BOX: 0.35, ELLIPSOID: 0.25, CYLINDER: 0.2, CARD: 0.2}
UPRIGHT_Z = (CYLINDER, CONE, TORUS, SUPERQUADRIC)
"""Shapes whose z axis points up where they stand."""


class Objects:
    """Draws primitives.

    Args:
        texture: draws a row of the texture atlas.
        heights: the height fields there are; the first half sink at their rim.
    """

    def __init__(
        self, rng: np.random.Generator, config: WorldConfig, texture: Callable[[], int], heights: Float[Array, "G P P"]
    ) -> None:
        self.rng, self.config, self.texture, self.heights = rng, config, texture, heights
        shares = OLD_SHAPES | {
            CONE: config.cones,
            TORUS: config.tori,
            SUPERQUADRIC: config.superquadrics,
            WIRE: config.wires,
        }
        self.shapes, self.shares = list(shares), np.array(list(shares.values())) / sum(shares.values())

    def primitive(
        self, shape: int, center: Float[Array, " 3"], half: Float[Array, " 3"], R_world_local: Float[Array, "3 3"]
    ) -> Float[Array, " F"]:
        """A shape with a random look."""
        rng, row = self.rng, np.zeros(FIELDS, np.float32)
        row[0] = shape
        row[1:4] = center
        row[4:13] = R_world_local.T.reshape(-1)
        row[13:16] = half
        row[16] = self.texture()
        size = float(np.median(half)) if shape != ROOM else 2.0
        row[17] = math.exp(rng.uniform(math.log(0.25), math.log(2.0))) / max(size, 0.3)
        plain = rng.random() < 0.12
        contrast = rng.uniform(0.02, 0.1) if plain else rng.uniform(0.6, 1.3)
        row[18:21] = contrast * rng.uniform(0.75, 1.25, 3)
        row[21:24] = rng.uniform(0.1, 0.8, 3) if plain else rng.uniform(-0.05, 0.2)
        row[24] = rng.uniform(0.1, 0.6) if rng.random() < 0.15 else 0.0
        row[25] = float(np.linalg.norm(half))
        if shape == TORUS:
            row[PARAMETERS] = rng.uniform(0.08, 0.45)
        elif shape == SUPERQUADRIC:
            row[PARAMETERS : PARAMETERS + 2] = np.exp(rng.uniform(0, math.log(8.0), 2))
        return row

    def relief(
        self,
        center: Float[Array, " 3"],
        half: Float[Array, " 3"],
        R_world_local: Float[Array, "3 3"],
        *,
        terrain: bool = False,
    ) -> Float[Array, " F"]:
        """A bumpy surface: heights along the frame's z, up to ``half[2]`` either way."""
        row = self.primitive(RELIEF, center, half, R_world_local)
        low, high = (0, len(self.heights) // 2) if terrain else (len(self.heights) // 2, len(self.heights))
        row[PARAMETERS] = self.rng.integers(low, high)
        return row

    def thing(self, floor: float, spread: float) -> Float[Array, " F"]:
        """Something that stands on the floor, or floats anywhere."""
        rng = self.rng
        shape = int(rng.choice(self.shapes, p=self.shares))
        half = self._half(shape, math.exp(rng.uniform(math.log(0.08), math.log(0.9))))
        if shape == WIRE:
            return self._wire(half, floor, spread)
        standing = rng.random() < 0.65
        R_world_local = upright(rng, 0.05) if standing else upright(rng, 1.5)
        if shape in UPRIGHT_Z and standing:
            R_world_local = R_world_local @ euler(0.0, math.pi / 2, 0.0)
        height = floor - half[2 if shape in UPRIGHT_Z else 1] if standing else rng.uniform(-floor, floor)
        center = np.array([rng.normal(0, spread), height, rng.normal(0, spread)])
        if shape == CARD and rng.random() < self.config.reliefs:
            half[2] = rng.uniform(0.05, 0.3) * min(half[0], half[1])
            return self.relief(center, half, R_world_local)
        row = self.primitive(shape, center, half, R_world_local)
        if shape == TORUS and standing:
            row[2] = floor - half[2] * row[PARAMETERS]
        if shape in (BOX, ELLIPSOID, CYLINDER, CONE) and rng.random() < self.config.cuts:
            self._cut(row)
        return row

    def _half(self, shape: int, size: float) -> Float[Array, " 3"]:
        """Half sizes around ``size``, sometimes long and thin, as the shape allows."""
        rng = self.rng
        half = size * np.exp(rng.uniform(-0.7, 0.7, 3))
        if shape == TORUS:
            return size * np.array([1.0, rng.uniform(0.7, 1.0), rng.uniform(0.8, 1.2)])
        if shape in (CONE, SUPERQUADRIC):
            return half
        if rng.random() < 0.15:
            half[int(rng.integers(3))] *= 4.0
            half[int(rng.integers(3))] *= 0.15
        if shape == CYLINDER:
            half[1] = half[0]
        if shape == CARD:
            half[2] = 1e-3
        return half

    def _wire(self, half: Float[Array, " 3"], floor: float, spread: float) -> Float[Array, " F"]:
        """A pole, a cable or a twig."""
        rng = self.rng
        thin, long = math.exp(rng.uniform(math.log(0.003), math.log(0.015))), half[2] * rng.uniform(1.5, 4.0)
        if rng.random() < 0.5:
            R_world_local, height = upright(rng, 0.1) @ euler(0.0, math.pi / 2, 0.0), floor - long
        else:
            R_world_local, height = upright(rng, 0.5), rng.uniform(-floor, 0.8 * floor)
        center = np.array([rng.normal(0, spread), height, rng.normal(0, spread)])
        return self.primitive(CYLINDER, center, np.array([thin, thin, long]), R_world_local)

    def _cut(self, row: Float[Array, " F"]) -> None:
        """Take a ball out of a primitive, or bore through it along one axis."""
        rng = self.rng
        radii = rng.uniform(0.35, 0.8, 3)
        place = rng.uniform(-0.4, 0.4, 3)
        if rng.random() < 0.5:
            axis = int(rng.integers(3))
            radii[axis], place[axis] = np.inf, 0.0
        else:
            side = int(rng.integers(3))
            place[side] = rng.uniform(0.5, 1.0) * rng.choice((-1, 1))
        row[CUT : CUT + 3], row[CUT + 3 : CUT + 6] = place, 1.0 / radii
