"""Exact correspondences: for places of one photo, where another shows them, or that it does not.

Input: worlds with exact cameras, and collages of textures seen from several sides. Output: ``PairBatch`` records.
Does not: render worlds; ``worlds`` does. Collages are flat, but as rich in detail as photos are, which worlds of a few dozen
objects are not (homographies as in DeTone et al., "SuperPoint", 2018, section 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8

from ..matcher import CELL
from .photography import photograph
from .textures import generated_textures
from .worlds import Capture, WorldConfig, Worlds

__all__ = ["CELL", "PairBatch", "PairSource", "correspond"]

Array = np.ndarray
SMOOTH = 0.005
"""Bend of the inverse depth between three blocks, over its value, up to which it counts as affine."""
SEEN, UNSEEN, UNKNOWN = 1, 0, -1
SAME, OTHER = 0.03, 0.1
"""Relative differences of depth up to which two photos see the same surface, and from which another one hides it."""
LEAST_OVERLAP = 0.08
"""Share of the first photo's cells that the second must show."""
FLAT_SHARE = 0.7
"""Collages among the scenes."""
CANVAS = 640
"""Pixels of a collage's side."""
EXACT = WorldConfig(camera_noise_px=0.0, distortion_px=0.0, roll=0.2, distance=0.25, stride=1.6)
"""Worlds for matching: cameras and lenses without errors, photos rolled, from unequal distances and further apart."""


@dataclass(frozen=True)
class PairBatch:
    """Photos of one size and pairs of them. Positions are x, y in pixels, centres at +0.5."""

    images: Float[Array, "B H W 3"]
    world: Int[Array, " B"]
    """Which world each photo shows."""
    pairs: Int[Array, "N 2"]
    query_px: Float[Array, "N 2 cells 2"]
    """A place in every cell of the first photo, and of the second."""
    target_px: Float[Array, "N 2 cells 2"]
    """Where the other photo shows it."""
    state: Int[Array, "N 2 cells"]
    """1 seen by the other photo, 0 not, -1 not known."""


Places = tuple[Float[Array, "cells 2"], Float[Array, "cells 2"], Int[Array, " cells"]]
"""Query in every cell of one photo, where the other shows it, and whether it does."""


def correspond(capture: Capture, first: int, second: int, rng: np.random.Generator) -> Places:
    """Follow one random place of every cell of a photo into another photo.

    Depth is known at the middles of 2 x 2 pixel blocks. One of the sixteen blocks of a cell is taken, and in it any place where the
    inverse depth is affine, as on a plane; else its middle.
    """
    depth = capture.depth[2]
    x, y = blocks(depth.shape[1] // 4, depth.shape[2] // 4, rng)
    inverse = np.where(depth[first] < 1e20, 1.0 / depth[first], 0.0).astype(np.float64)
    at = inverse[y, x]
    solid = at > 0
    around = np.pad(inverse, 1, mode="edge")
    left, right, above, below = around[y + 1, x], around[y + 1, x + 2], around[y, x + 1], around[y + 2, x + 1]
    bend = np.maximum(np.abs(left - 2 * at + right), np.abs(above - 2 * at + below))
    inner = (x > 0) & (x < depth.shape[2] - 1) & (y > 0) & (y < depth.shape[1] - 1)
    affine = inner & (np.minimum.reduce([left, right, above, below]) > 0) & (bend < SMOOTH * at)
    step = rng.uniform(-1, 1, (2, len(x))) * affine
    at = at + step[0] * (right - left) / 4 + step[1] * (below - above) / 4
    query_px = np.stack([2 * x + 1.0 + step[0], 2 * y + 1.0 + step[1]], axis=1)
    z = 1.0 / np.where(solid, at, 1.0)
    rays = np.concatenate([query_px, np.ones((len(x), 1))], axis=1) @ np.linalg.inv(capture.K[first].astype(np.float64)).T
    T_second_first = np.linalg.inv(capture.T_world_cam[second].astype(np.float64)) @ capture.T_world_cam[first].astype(np.float64)
    points = rays * z[:, None] @ T_second_first[:3, :3].T + T_second_first[:3, 3]
    ahead = np.maximum(points[:, 2], 1e-6)
    target_px = (points @ capture.K[second].astype(np.float64).T / ahead[:, None])[:, :2]
    size = np.array([depth.shape[2], depth.shape[1]]) * 2.0
    inside = solid & (points[:, 2] > 1e-3) & (target_px > 1.0).all(axis=1) & (target_px < size - 1.0).all(axis=1)
    block = np.clip(np.floor(np.where(inside[:, None], target_px, 1.0) / 2).astype(np.int64), 1, (size / 2).astype(np.int64) - 2)
    near = np.stack([depth[second][block[:, 1] + j, block[:, 0] + i] for j in (-1, 0, 1) for i in (-1, 0, 1)])
    apart = np.abs(np.minimum(near, 1e9) - ahead).min(axis=0) / ahead
    state = np.where(inside & (apart < SAME), SEEN, np.where(solid & (~inside | (apart > OTHER)), UNSEEN, UNKNOWN))
    return query_px.astype(np.float32), np.where(inside[:, None], target_px, 0.0).astype(np.float32), state


def blocks(rows: int, columns: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """x and y of one of the sixteen 2 x 2 pixel blocks of every cell, row-major."""
    y, x = np.mgrid[0:rows, 0:columns] * 4
    return (x + rng.integers(0, 4, x.shape)).ravel(), (y + rng.integers(0, 4, y.shape)).ravel()


class PairSource:
    """An endless source of pairs of photos with exact correspondences.

    Args:
        textures: ``T S S 3`` uint8 photographs; None uses generated ones alone.
        seed: seed of everything random.
        cast: 'cpu' or 'cuda', where rays are cast.
    """

    def __init__(self, textures: UInt8[Array, "T S S 3"] | None, seed: int, *, cast: str = "cpu") -> None:
        self.worlds = Worlds(textures, seed, EXACT, cast=cast)
        self.rng = self.worlds.rng
        made = generated_textures(np.random.default_rng(seed + 1), 48)
        self.pictures = made if textures is None else np.concatenate([textures, made])

    def make(self, count: int, *, views: int, size: tuple[int, int]) -> PairBatch:
        """Photograph ``count`` scenes and pair their photos; of two scenes or more one pair may share nothing.

        No texture is in two of the scenes, so that photos of different scenes really have nothing in common.
        """
        if count < 1 or views < 2:
            raise ValueError(f"pairs: wanted a scene and two views of it, got {count} and {views}")
        rng = self.rng
        palettes = np.array_split(rng.permutation(len(self.pictures)), count)
        scenes = [self._scene(views, size, palette) for palette in palettes]
        found = []
        for index, (_, follow) in enumerate(scenes):
            for a in range(views):
                for b in range(a + 1, views):
                    sides = (follow(a, b), follow(b, a))
                    if min((side[2] == SEEN).mean() for side in sides) > LEAST_OVERLAP:
                        found.append(((index * views + a, index * views + b), *zip(*sides, strict=True)))
        cells = size[0] // CELL * (size[1] // CELL)
        if count > 1 and (not found or rng.random() < 0.3):
            nothing = np.zeros((2, cells, 2), np.float32)
            strangers = (int(rng.integers(views)), views + int(rng.integers(views)))
            found.append((strangers, nothing, nothing, np.zeros((2, cells), int)))
        order = rng.permutation(len(found))
        return PairBatch(
            images=np.concatenate([varied(images, rng) for images, _ in scenes]),
            world=np.repeat(np.arange(count), views),
            pairs=np.array([found[i][0] for i in order], np.int64).reshape(-1, 2),
            query_px=np.array([found[i][1] for i in order], np.float32).reshape(-1, 2, cells, 2),
            target_px=np.array([found[i][2] for i in order], np.float32).reshape(-1, 2, cells, 2),
            state=np.array([found[i][3] for i in order], np.int64).reshape(-1, 2, cells),
        )

    def _scene(
        self, views: int, size: tuple[int, int], palette: Int[Array, " T"]
    ) -> tuple[Float[Array, "V H W 3"], Callable[[int, int], Places]]:
        """Photos, and a way to follow places from one into another."""
        if self.rng.random() >= FLAT_SHARE:
            self.worlds.palette = palette
            capture = self.worlds.capture(views, *size)
            return capture.images, lambda first, second: correspond(capture, first, second, self.rng)
        canvas = self._collage(palette)
        sides = np.stack([self._side(size) for _ in range(views)])
        images = photograph(seen_from(canvas, sides, size), self.rng)
        return images, lambda first, second: follow_flat(sides, first, second, size, self.rng)

    def _collage(self, palette: Int[Array, " T"]) -> Float[Array, "S S 3"]:
        """One texture covered by pieces of others: rectangles and ellipses of all sizes."""
        rng = self.rng
        order = rng.permutation(palette)
        canvas = (self._picture(int(order[0])).repeat(3, axis=0).repeat(3, axis=1)[:CANVAS, :CANVAS] / 255).astype(np.float32)
        for piece_number in range(int(rng.integers(12, 60))):
            picture = self._picture(int(order[piece_number % len(order)]))
            high, wide = (int(v) for v in np.exp(rng.uniform(math.log(20), math.log(240), 2)))
            top, left = (int(v) for v in rng.integers(0, CANVAS - 20, 2))
            place = canvas[top : top + high, left : left + wide]
            high, wide = place.shape[:2]
            piece = picture[int(rng.integers(256 - high + 1)) :, int(rng.integers(256 - wide + 1)) :][:high, :wide]
            gain = (math.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.1, 3)) / 255).astype(np.float32)
            piece = np.minimum(piece * gain, 1)
            y, x = np.mgrid[-1 : 1 : high * 1j, -1 : 1 : wide * 1j]
            round_off = 4.0 if rng.random() < 0.6 else 1.0
            np.copyto(place, piece, where=np.array(x * x + y * y, np.float32)[..., None] < round_off)
        return canvas

    def _picture(self, index: int) -> UInt8[Array, "S S 3"]:
        """A texture of 256 x 256 pixels, turned and mirrored at random."""
        one = np.rot90(self.pictures[index], int(self.rng.integers(4)))
        return one[:, ::-1] if self.rng.random() < 0.5 else one

    def _side(self, size: tuple[int, int]) -> Float[Array, "3 3"]:
        """Homography from pixels of a photo to those of the collage: turned, nearer or further, slanted."""
        rng = self.rng
        height, width = size
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64) - (width / 2, height / 2)
        angle, scale = rng.normal(0, 0.35), math.exp(rng.normal(math.log(1.3), 0.3)) * 256 / max(size)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        slanted = corners * scale * (1 + rng.uniform(-0.3, 0.3, (4, 1))) * (1 + rng.uniform(-0.15, 0.15, 2))
        there = slanted @ turn.T + CANVAS / 2 + rng.normal(0, 50, 2)
        return homography(corners + np.array([width / 2, height / 2]), there)


def homography(here: Float[Array, "4 2"], there: Float[Array, "4 2"]) -> Float[Array, "3 3"]:
    """The projective map that takes four points to four others (Hartley and Zisserman 2004, section 4.1)."""
    rows = []
    for (x, y), (u, v) in zip(here, there, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.append(np.linalg.solve(np.array(rows), there.reshape(-1)), 1.0).reshape(3, 3)


def mapped(H: Float[Array, "3 3"], px: Float[Array, "N 2"]) -> Float[Array, "N 2"]:
    """Points through a homography."""
    moved = np.concatenate([px, np.ones((len(px), 1))], axis=1) @ H.T
    return moved[:, :2] / moved[:, 2:]


def seen_from(canvas: Float[Array, "S S 3"], sides: Float[Array, "V 3 3"], size: tuple[int, int]) -> Float[Array, "V H W 3"]:
    """Photos of a collage; beyond its border it is mirrored."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    px = np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1)
    grid = np.stack([mapped(H, px).reshape(*x.shape, 2) for H in sides]) / CANVAS * 2 - 1
    source = torch.from_numpy(canvas).permute(2, 0, 1).expand(len(sides), -1, -1, -1)
    return (
        F.grid_sample(source, torch.from_numpy(grid).float(), padding_mode="reflection", align_corners=False)
        .permute(0, 2, 3, 1)
        .contiguous()
        .numpy()
    )


def follow_flat(sides: Float[Array, "V 3 3"], first: int, second: int, size: tuple[int, int], rng: np.random.Generator) -> Places:
    """Follow one random place of every cell of a photo of a collage into another one."""
    y, x = np.mgrid[0 : size[0] // CELL, 0 : size[1] // CELL] * CELL
    query_px = np.stack([x.ravel(), y.ravel()], axis=1) + rng.uniform(0, CELL, (x.size, 2))
    on_canvas = mapped(sides[first], query_px)
    target_px = mapped(np.linalg.inv(sides[second]), on_canvas)
    inside = (target_px > 1.0).all(axis=1) & (target_px < np.array(size[::-1]) - 1.0).all(axis=1)
    state = np.where((on_canvas < 0).any(axis=1) | (on_canvas > CANVAS).any(axis=1), UNKNOWN, np.where(inside, SEEN, UNSEEN))
    return query_px.astype(np.float32), (target_px * inside.reshape(-1, 1)).astype(np.float32), state


def varied(images: Float[Array, "V H W 3"], rng: np.random.Generator) -> Float[Array, "V H W 3"]:
    """Other light and another camera for every photo: gain, colour, gamma, a shade across the picture, sometimes blur."""
    _, height, width, _ = images.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    out = np.empty_like(images, np.float32)
    for index, image in enumerate(images.astype(np.float32)):
        gain = math.exp(rng.normal(-0.05, 0.2)) * np.exp(rng.normal(0, 0.1, 3))
        direction = rng.uniform(0, 2 * math.pi)
        shade = 1 + np.float32(rng.uniform(0, 0.3)) * (np.float32(math.cos(direction)) * x + np.float32(math.sin(direction)) * y)
        made = np.clip(image * gain.astype(np.float32) * shade[..., None], 1e-4, 1.0)
        made = made ** np.float32(math.exp(rng.normal(0, 0.2)))
        if rng.random() < 0.2:
            small = made[: height // 2 * 2, : width // 2 * 2].reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3))
            made = (small.repeat(2, axis=0).repeat(2, axis=1) + made) / 2
        out[index] = made
    return np.clip(out, 0, 1)
