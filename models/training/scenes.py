"""Kinds of procedural worlds: rooms, open ground, facades, clutter, courts, terrain and tables.

Input: a random generator, shares of ingredients, ``Objects``. Output: ``Scene`` records.
Does not: place cameras (``paths``) or judge whether a world is worth a photo (``worlds``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .ingredients import WorldConfig
from .objects import Objects
from .paths import euler, upright
from .relief import height_at
from .shapes import BOX, CYLINDER, ELLIPSOID, PARAMETERS, RELIEF, ROOM

__all__ = ["KINDS", "Scene", "Scenes"]

Array = np.ndarray
OLD_KINDS = {"room": 0.35, "ground": 0.3, "facade": 0.175, "clutter": 0.175}
KINDS = (*OLD_KINDS, "court", "terrain", "table")
INDOORS = ("room", "clutter", "table")


@dataclass(frozen=True)
class Scene:
    """What stands in a world and where to look at it from."""

    primitives: Float[Array, "V N F"]
    """What is there when each photo is taken."""
    kind: str
    target: Float[Array, " 3"]
    """A point worth looking at; y is down."""
    reach: float
    """A distance to look from."""

    def above_ground(self, T_world_cam: Float[Array, "V 4 4"], heights: Float[Array, "G P P"]) -> bool:
        """Whether no camera is below the terrain or just above it."""
        if self.kind != "terrain":
            return True
        ground = next(row for row in self.primitives[0] if row[0] == RELIEF)
        return all(center[1] < surface_height(ground, heights, center) - 0.05 * ground[15] for center in T_world_cam[:, :3, 3])

    @property
    def under_sky(self) -> bool:
        """Whether one may rise above it."""
        return self.kind not in INDOORS


class Scenes:
    """Draws worlds."""

    def __init__(self, rng: np.random.Generator, config: WorldConfig, objects: Objects) -> None:
        self.rng, self.config, self.objects = rng, config, objects
        shares = OLD_KINDS | {"court": config.court, "terrain": config.terrain, "table": config.table}
        self.kinds, self.shares = list(shares), np.array(list(shares.values())) / sum(shares.values())

    def make(self, views: int) -> Scene:
        """Draw a world for so many photos."""
        rng = self.rng
        kind = str(rng.choice(self.kinds, p=self.shares))
        floor = rng.uniform(0.8, 1.6)
        if kind in INDOORS:
            half = np.array([rng.uniform(2, 6), floor, rng.uniform(2, 6)])
            rows = [self.objects.primitive(ROOM, np.zeros(3), half, upright(rng, 0.0))]
        else:
            rows = self._plain(floor)
        if kind == "court":
            target, reach = self._court(rows, floor)
        elif kind == "terrain":
            target, reach = self._terrain(rows, floor)
        elif kind == "table":
            target, reach = self._table(rows, floor)
        else:
            target, reach = self._things(rows, kind, floor)
        return Scene(self._moving(np.stack(rows), views, target, reach), kind, target, float(reach))

    def _plain(self, floor: float) -> list[Array]:
        """Open ground with large blocks far away."""
        rng = self.rng
        rows = [self.objects.primitive(BOX, np.array([0, floor + 1, 0.0]), np.array([80, 1, 80.0]), upright(rng, 0.02))]
        for _ in range(int(rng.integers(0, 7))):
            angle, away = rng.uniform(0, 6.28), rng.uniform(6, 40)
            half = np.array([rng.uniform(1, 8), rng.uniform(1, 8), rng.uniform(1, 8)])
            center = np.array([math.cos(angle) * away, floor - half[1] * 0.8, math.sin(angle) * away])
            rows.append(self.objects.primitive(BOX, center, half, upright(rng, 0.0)))
        return rows

    def _things(self, rows: list[Array], kind: str, floor: float) -> tuple[Array, float]:
        """Rooms, ground, facades and clutter: many things spread around the middle."""
        rng = self.rng
        if kind == "facade":
            rows += self._facade()
        spread = rng.uniform(0.5, 1.6)
        for _ in range(int(rng.integers(6, 28 if kind == "clutter" else 18))):
            rows.append(self.objects.thing(floor, spread))
        target = np.array([rng.normal(0, 0.3), rng.uniform(0, floor), rng.normal(0, 0.3)])
        return target, rng.uniform(1.2, 2.2) * spread if kind != "room" else rng.uniform(1.2, 3.0)

    def _facade(self) -> list[Array]:
        """A wall, sometimes bumpy, with equal things in rows and columns."""
        rng = self.rng
        half = np.array([rng.uniform(3, 10), rng.uniform(2, 5), 0.3])
        rows = [self.objects.primitive(BOX, np.array([0, 0, 2.0]), half, np.eye(3))]
        if rng.random() < self.config.reliefs:
            rows.append(self._bumps(rows[0], euler(math.pi, 0.0, 0.0)))
        template = np.abs(rng.normal(0, 0.3, 3)) + 0.08
        like = self.objects.primitive(int(rng.choice((BOX, ELLIPSOID, CYLINDER))), np.zeros(3), template, np.eye(3))
        pitch = rng.uniform(0.7, 1.5)
        for i in range(-2, 3):
            for j in range(-1, 2):
                row = like.copy()
                row[1:4] = (i * pitch, j * pitch, 1.7 + rng.normal(0, 0.03))
                rows.append(row)
        return rows

    def _bumps(self, wall: Float[Array, " F"], R_world_local: Float[Array, "3 3"]) -> Float[Array, " F"]:
        """A bumpy skin on the face of a wall that local z leaves, which looks as the wall does."""
        half = np.array([wall[13], wall[14], self.rng.uniform(0.02, 0.15)])
        row = self.objects.relief(wall[1:4] + R_world_local[:, 2] * (wall[15] + 0.95 * half[2]), half, R_world_local)
        row[16:24] = wall[16:24]
        return row

    def _court(self, rows: list[Array], floor: float) -> tuple[Array, float]:
        """Buildings round a yard: large walls, often plain, with rows of windows, and a few things in front of them."""
        rng = self.rng
        turn, radius = rng.uniform(0, 6.28), rng.uniform(2.5, 6.0)
        for i in range(int(rng.integers(1, 5))):
            angle = turn + i * math.pi / 2 + rng.normal(0, 0.1)
            R_world_local = euler(angle, 0.0, 0.0)
            half = np.array([rng.uniform(0.6, 1.4) * radius, rng.uniform(0.4, 1.2) * radius, 0.5])
            outward = R_world_local @ np.array([0, 0, 1.0])
            center = outward * (radius + half[2]) + np.array([0, floor - half[1], 0])
            wall = self.objects.primitive(BOX, center, half, R_world_local)
            rows.append(wall)
            if rng.random() < self.config.reliefs:
                rows.append(self._bumps(wall, euler(angle + math.pi, 0.0, 0.0)))
            if i < 2 and rng.random() < 0.8:
                rows += self._windows(wall, center - outward * half[2], half, R_world_local)
        for _ in range(int(rng.integers(0, 8))):
            rows.append(self.objects.thing(floor, 0.35 * radius))
        outward = euler(turn, 0.0, 0.0) @ np.array([0, 0, 1.0])
        target = outward * radius * rng.uniform(0.3, 1.0) + np.array([0, rng.uniform(-0.5, 0.5) * floor, 0])
        return target, radius * rng.uniform(0.6, 1.5)

    def _windows(self, wall: Array, middle: Array, half: Array, R_world_local: Array) -> list[Array]:
        """Equal boxes in rows and columns that stand a little out of a wall."""
        rng = self.rng
        columns, storeys = int(rng.integers(2, 6)), int(rng.integers(1, 4))
        size = np.array([half[0] / columns, half[1] / storeys, 0.0]) * rng.uniform(0.3, 0.7, 3)
        size[2] = rng.uniform(0.02, 0.15)
        like = self.objects.primitive(BOX, np.zeros(3), size, R_world_local)
        if rng.random() < 0.3:
            like[16:24] = wall[16:24]
        made = []
        for i in range(columns):
            for j in range(storeys):
                row = like.copy()
                across, down = (2 * i + 1) / columns - 1, (2 * j + 1) / storeys - 1
                row[1:4] = middle + R_world_local @ np.array([across * half[0], down * half[1], 0.0])
                made.append(row)
        return made

    def _terrain(self, rows: list[Array], floor: float) -> tuple[Array, float]:
        """Hills, ridges or terraces on the plain, with a few things that stick out of them."""
        rng = self.rng
        wide = math.exp(rng.uniform(math.log(3.0), math.log(12.0)))
        high = wide * rng.uniform(0.06, 0.25)
        R_world_local = upright(rng, 0.0) @ euler(0.0, math.pi / 2, 0.0)
        half = np.array([wide, wide * rng.uniform(0.7, 1.0), high])
        ground = self.objects.relief(np.array([0, floor - 0.98 * high, 0.0]), half, R_world_local, terrain=True)
        ground[17] = math.exp(rng.uniform(math.log(0.8), math.log(4.0))) / wide
        rows.append(ground)
        for _ in range(int(rng.integers(0, 12))):
            row = self.objects.thing(0.0, 0.4 * wide)
            row[2] += row[2] * rng.uniform(-0.3, 0.3) + surface_height(ground, self.objects.heights, row[1:4])
            rows.append(row)
        target = np.array([rng.normal(0, 0.15 * wide), 0.0, rng.normal(0, 0.15 * wide)])
        target[1] = surface_height(ground, self.objects.heights, target) - rng.uniform(0.0, 0.3) * high
        return target, rng.uniform(0.4, 1.0) * wide

    def _table(self, rows: list[Array], floor: float) -> tuple[Array, float]:
        """A table in a room with small things on it, and a few larger ones around."""
        rng, objects = self.rng, self.objects
        half = np.array([rng.uniform(0.5, 1.1), rng.uniform(0.015, 0.05), rng.uniform(0.35, 0.7)])
        top = floor - rng.uniform(0.5, 0.9)
        R_world_local = upright(rng, 0.0)
        board = objects.primitive(BOX, np.array([0, top + half[1], 0.0]), half, R_world_local)
        rows.append(board)
        leg = objects.primitive(BOX, np.zeros(3), np.array([0.03, (floor - top - 2 * half[1]) / 2, 0.03]), R_world_local)
        for x, z in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            row = leg.copy()
            row[1:4] = R_world_local @ np.array([x * (half[0] - 0.06), 0, z * (half[2] - 0.06)])
            row[2] = floor - leg[14]
            rows.append(row)
        for _ in range(int(rng.integers(5, 16))):
            row = shrunk(objects.thing(0.0, 1.0), rng.uniform(0.15, 0.35))
            place = rng.uniform(-0.85, 0.85, 2) * half[[0, 2]]
            row[1:4] = R_world_local @ np.array([place[0], 0.0, place[1]]) + np.array([0, top + min(row[2], 0.0), 0])
            rows.append(row)
        for _ in range(int(rng.integers(0, 6))):
            row = objects.thing(floor, 0.5)
            angle, away = rng.uniform(0, 6.28), rng.uniform(1.4, 2.5)
            row[[1, 3]] += np.array([math.cos(angle), math.sin(angle)]) * away
            rows.append(row)
        target = R_world_local @ np.array([rng.normal(0, 0.15), 0.0, rng.normal(0, 0.1)]) + np.array([0, top - 0.08, 0])
        return target, rng.uniform(0.8, 1.8)

    def _moving(self, rows: Float[Array, "N F"], views: int, target: Float[Array, " 3"], reach: float) -> Float[Array, "V M F"]:
        """The same things in every photo, but for one or two in some worlds, which are somewhere else each time."""
        rng = self.rng
        if rng.random() >= self.config.movers:
            return np.ascontiguousarray(np.repeat(rows[None], views, axis=0))
        movers = np.stack([shrunk(self.objects.thing(0.0, 1.0), 0.4 * reach) for _ in range(int(rng.integers(1, 3)))])
        everything = np.repeat(np.concatenate([rows, movers])[None], views, axis=0)
        for index in range(len(movers)):
            start, way = target + rng.normal(0, 0.3 * reach, 3), rng.normal(0, 0.25 * reach, 3) * (1.0, 0.2, 1.0)
            for view in range(views):
                row = everything[view, len(rows) + index]
                row[1:4] = start + way * (view - (views - 1) / 2) + rng.normal(0, 0.05 * reach, 3)
                turn = euler(rng.normal(0, 0.4), 0.0, 0.0)
                row[4:13] = (row[4:13].reshape(3, 3) @ turn.T).reshape(-1)
        return np.ascontiguousarray(everything)


def surface_height(ground: Float[Array, " F"], heights: Float[Array, "G P P"], point: Float[Array, " 3"]) -> float:
    """World y of a terrain above or below a point; that of its lowest level beside it."""
    x, y, _ = ground[4:13].reshape(3, 3) @ (point - ground[1:4]) / ground[13:16]
    return float(ground[2] - ground[15] * height_at(heights[int(ground[PARAMETERS])], float(x), float(y)))


def shrunk(row: Float[Array, " F"], factor: float) -> Float[Array, " F"]:
    """A primitive and its distance from the origin scaled; its texture with it. What it is made of stays as it is."""
    row = row.copy()
    row[1:4] *= factor
    row[13:16] *= factor
    row[25] *= factor
    row[17] /= factor
    return row
