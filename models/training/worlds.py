"""Procedural worlds: random scenes and camera paths, ray-cast on the fly with exact depth.

Input: a random generator and textures. Output: ``Capture`` records (photos, cameras, depth, depth ranges).
Does not: read image files; textures come packed (``load_textures``) or are generated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from . import raycast
from .photography import photograph
from .raycast import BOX, CARD, CYLINDER, ELLIPSOID, ROOM

__all__ = ["Capture", "WorldConfig", "Worlds", "generated_textures", "load_textures"]

Array = np.ndarray
STYLES = ("orbit", "forward", "walk", "wide")
MANY_PIXELS = 40_000
"""Photos with more pixels are cast with one ray a pixel instead of two."""
STYLE_SHARES = (0.35, 0.33, 0.12, 0.2)


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """What the worlds and their captures look like."""

    photographic: bool = True
    """Exposure drift, noise, blur, compression and small camera errors."""
    camera_noise_px: float = 0.25
    """Standard deviation of the camera rotation error, in pixels at the image centre."""


@dataclass(frozen=True)
class Capture:
    """Photos of one world with exact depth. ``depth[c]`` is sampled at the centres of c x c pixel blocks; 1e30 is sky."""

    images: Float[Array, "V H W 3"]
    K: Float[Array, "V 3 3"]
    T_world_cam: Float[Array, "V 4 4"]
    """What a solver would report: the true cameras with small errors."""
    depth: dict[int, Float[Array, "V h w"]]
    depth_range: Float[Array, "V 2"]
    style: str


def load_textures(path: Path) -> UInt8[Array, "T S S 3"]:
    """Read the pack that ``data/pack_textures.py`` writes."""
    return np.load(path)["textures"]


def generated_textures(rng: np.random.Generator, count: int, size: int = 256) -> UInt8[Array, "T S S 3"]:
    """Noise of several octaves, checkers, stripes, spots and near-plain gradients in random colours."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    out = np.empty((count, size, size, 3), np.uint8)
    for i in range(count):
        noise = np.zeros((size, size), np.float32)
        for octave in range(int(rng.integers(2, 7)) + 1):
            cells = min(2 ** (octave + 1), size)
            grid = rng.random((cells, cells), dtype=np.float32)
            noise += np.kron(grid, np.ones((size // cells, size // cells), np.float32)) * 0.6**octave
        noise = _smooth(noise)
        frequency = int(rng.integers(2, 20))
        patterns = (
            noise,
            ((np.floor(x * frequency) + np.floor(y * frequency)) % 2) + 0.2 * noise,
            (np.sin((x * rng.uniform(-1, 1) + y) * frequency * 6.28) > 0) + 0.2 * noise,
            (np.hypot((x * frequency) % 1 - 0.5, (y * frequency) % 1 - 0.5) < 0.3) + 0.2 * noise,
            0.1 * noise + x * rng.uniform(0, 1),
        )
        value = patterns[int(rng.choice(5, p=(0.4, 0.15, 0.15, 0.1, 0.2)))]
        value = (value - value.min()) / (np.ptp(value) + 1e-6)
        low, high = rng.random(3), rng.random(3)
        out[i] = np.clip((low + (high - low) * value[..., None]) * 255, 0, 255)
    return out


def _smooth(image: Array) -> Array:
    for axis in (0, 1):
        image = (np.roll(image, 1, axis) + 2 * image + np.roll(image, -1, axis)) / 4
    return image


def _rotation(rng: np.random.Generator, tilt: float) -> Array:
    """Turn about the vertical, tilted by about ``tilt`` radians."""
    yaw, a, b = rng.uniform(0, 2 * math.pi), rng.normal(0, tilt), rng.normal(0, tilt)
    return _euler(yaw, a, b)


def _euler(yaw: float, pitch: float, roll: float) -> Array:
    cy, sy, cp, sp, cr, sr = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch), math.cos(roll), math.sin(roll)
    turn_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    turn_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    turn_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return turn_y @ turn_x @ turn_z


class Worlds:
    """An endless source of captures.

    Args:
        textures: ``T S S 3`` uint8 photographs; None uses generated ones alone.
        seed: seed of everything random.
    """

    def __init__(self, textures: Array | None, seed: int, config: WorldConfig | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.config = config or WorldConfig()
        made = generated_textures(np.random.default_rng(seed + 1), 48)
        self.atlas = raycast.mip_atlas(made if textures is None else np.concatenate([textures, made]))
        self.photographs = 0 if textures is None else len(textures)

    def capture(self, views: int, height: int, width: int) -> Capture:
        """Make a world and photograph it. Sizes are multiples of 8 in pixels."""
        rng = self.rng
        primitives, style, reach, T_world_cam, K, coarse = self._scene(views, height, width)
        depth = {cell: raycast.cast_depth(primitives, T_world_cam, K, height, width, cell) for cell in (2, 4)}
        depth[8] = coarse
        light = np.append(self._unit(), rng.uniform(0.5, 0.95)).astype(np.float32)
        sky = np.array([self._texture(), rng.uniform(0.2, 1.0), *rng.uniform(0.0, 0.5, 3), *rng.uniform(0.2, 0.8, 3)], np.float32)
        samples = 1 if height * width > MANY_PIXELS else 2
        images = raycast.cast_colors(primitives, self.atlas, sky, light, T_world_cam, K, height, width, samples)
        reported = T_world_cam
        if self.config.photographic:
            images = photograph(images, rng)
            reported = self._camera_errors(T_world_cam, K, reach)
        return Capture(np.clip(images, 0, 1), K, reported, depth, self._range(coarse), style)

    def _scene(self, views: int, height: int, width: int) -> tuple[Array, str, float, Array, Array, Array]:
        """Draw worlds and paths until the cameras see something; returns the depth at 8 x 8 blocks with them."""
        while True:
            primitives, target, reach = self._world()
            style = str(self.rng.choice(STYLES, p=STYLE_SHARES))
            T_world_cam = self._cameras(views, style, target, reach)
            K = self._intrinsics(views, height, width)
            coarse = raycast.cast_depth(primitives, T_world_cam, K, height, width, 8)
            if self._usable(coarse):
                return primitives, style, reach, T_world_cam, K, coarse

    def _texture(self) -> int:
        total = self.atlas[0].shape[0]
        if self.photographs and self.rng.random() < 0.75:
            return int(self.rng.integers(self.photographs))
        return int(self.rng.integers(self.photographs, total))

    def _unit(self) -> Array:
        v = self.rng.normal(size=3) + np.array([0, -1.0, 0])
        return v / np.linalg.norm(v)

    def _primitive(self, shape: int, center: Array, half: Array, R_world_local: Array) -> Array:
        rng, row = self.rng, np.zeros(raycast.FIELDS, np.float32)
        row[0] = shape
        row[1:4] = center
        row[4:13] = R_world_local.T.reshape(-1)
        row[13:16] = half
        row[16] = self._texture()
        size = float(np.median(half)) if shape != ROOM else 2.0
        row[17] = math.exp(rng.uniform(math.log(0.25), math.log(2.0))) / max(size, 0.3)
        plain = rng.random() < 0.12
        contrast = rng.uniform(0.02, 0.1) if plain else rng.uniform(0.6, 1.3)
        row[18:21] = contrast * rng.uniform(0.75, 1.25, 3)
        row[21:24] = rng.uniform(0.1, 0.8, 3) if plain else rng.uniform(-0.05, 0.2)
        row[24] = rng.uniform(0.1, 0.6) if rng.random() < 0.15 else 0.0
        row[25] = float(np.linalg.norm(half))
        return row

    def _world(self) -> tuple[Array, Array, float]:
        """Primitives, a point worth looking at, and a distance to look from."""
        rng, rows = self.rng, []
        kind = str(rng.choice(("room", "ground", "facade", "clutter"), p=(0.35, 0.3, 0.2, 0.15)))
        floor = rng.uniform(0.8, 1.6)
        still = np.eye(3)
        if kind in ("room", "clutter"):
            half = np.array([rng.uniform(2, 6), floor, rng.uniform(2, 6)])
            rows.append(self._primitive(ROOM, np.array([0, 0, 0.0]), half, _rotation(rng, 0.0)))
        else:
            rows.append(self._primitive(BOX, np.array([0, floor + 1, 0.0]), np.array([80, 1, 80.0]), _rotation(rng, 0.02)))
            for _ in range(int(rng.integers(0, 7))):
                angle, away = rng.uniform(0, 6.28), rng.uniform(6, 40)
                half = np.array([rng.uniform(1, 8), rng.uniform(1, 8), rng.uniform(1, 8)])
                rows.append(
                    self._primitive(
                        BOX,
                        np.array([math.cos(angle) * away, floor - half[1] * 0.8, math.sin(angle) * away]),
                        half,
                        _rotation(rng, 0.0),
                    )
                )
        if kind == "facade":
            rows.append(self._primitive(BOX, np.array([0, 0, 2.0]), np.array([rng.uniform(3, 10), rng.uniform(2, 5), 0.3]), still))
            template = np.abs(rng.normal(0, 0.3, 3)) + 0.08
            like, pitch = (
                self._primitive(int(rng.choice((BOX, ELLIPSOID, CYLINDER))), np.zeros(3), template, still),
                rng.uniform(0.7, 1.5),
            )
            for i in range(-2, 3):
                for j in range(-1, 2):
                    row = like.copy()
                    row[1:4] = (i * pitch, j * pitch, 1.7 + rng.normal(0, 0.03))
                    rows.append(row)
        spread = rng.uniform(0.5, 1.6)
        for _ in range(int(rng.integers(6, 28 if kind == "clutter" else 18))):
            rows.append(self._object(floor, spread))
        target = np.array([rng.normal(0, 0.3), rng.uniform(0, floor), rng.normal(0, 0.3)])
        reach = rng.uniform(1.2, 2.2) * spread if kind != "room" else rng.uniform(1.2, 3.0)
        return np.stack(rows), target, float(reach)

    def _object(self, floor: float, spread: float) -> Array:
        rng = self.rng
        shape = int(rng.choice((BOX, ELLIPSOID, CYLINDER, CARD), p=(0.35, 0.25, 0.2, 0.2)))
        size = math.exp(rng.uniform(math.log(0.08), math.log(0.9)))
        half = size * np.exp(rng.uniform(-0.7, 0.7, 3))
        if rng.random() < 0.15:
            half[int(rng.integers(3))] *= 4.0
            half[int(rng.integers(3))] *= 0.15
        if shape == CYLINDER:
            half[1] = half[0]
        if shape == CARD:
            half[2] = 1e-3
        standing = rng.random() < 0.65
        R_world_local = _rotation(rng, 0.05) if standing else _rotation(rng, 1.5)
        if shape == CYLINDER and standing:
            R_world_local = R_world_local @ _euler(0.0, math.pi / 2, 0.0)
        height = floor - half[2 if shape == CYLINDER else 1] if standing else rng.uniform(-floor, floor)
        return self._primitive(shape, np.array([rng.normal(0, spread), height, rng.normal(0, spread)]), half, R_world_local)

    def _cameras(self, views: int, style: str, target: Array, reach: float) -> Array:
        """Camera-to-world matrices along one capture style."""
        rng = self.rng
        azimuth, elevation = rng.uniform(0, 6.28), rng.uniform(-0.05, 0.7)
        step = {"orbit": rng.uniform(0.08, 0.3), "wide": rng.uniform(0.25, 0.5)}.get(style, 0.0)
        baseline = reach * math.exp(rng.uniform(math.log(0.1), math.log(0.5)))
        roll = math.pi / 2 if rng.random() < 0.1 else 0.0
        out = np.tile(np.eye(4, dtype=np.float32), (views, 1, 1))
        for i in range(views):
            place = i - (views - 1) / 2
            angle = azimuth + step * place + rng.normal(0, 0.1 * step)
            up = elevation + rng.normal(0, 0.3 * step)
            away = reach * (1 + rng.normal(0, 0.06 if step else 0.0))
            center = target + away * np.array([math.cos(angle) * math.cos(up), -math.sin(up), math.sin(angle) * math.cos(up)])
            R_world_cam = _look(target + rng.normal(0, 0.05 * reach, 3) * (step > 0) - center, roll + rng.normal(0, 0.03))
            if style == "forward":
                center = center + R_world_cam @ (rng.uniform(-1, 1, 3) * np.array([1, 0.6, 0.25]) * baseline)
                R_world_cam = R_world_cam @ _euler(*rng.normal(0, 0.04, 3))
            elif style == "walk":
                center = center + R_world_cam @ (np.array([rng.normal(0, 0.6), rng.normal(0, 0.25), place]) * baseline * 0.7)
                R_world_cam = R_world_cam @ _euler(rng.normal(0, 0.1), *rng.normal(0, 0.03, 2))
            out[i, :3, :3], out[i, :3, 3] = R_world_cam, center
        return out

    def _intrinsics(self, views: int, height: int, width: int) -> Array:
        """Focal lengths from wide to a narrow crop of a larger photo, principal point off centre as in a crop."""
        rng = self.rng
        focal = math.exp(rng.uniform(math.log(0.6), math.log(2.2))) * max(width, height)
        off = rng.uniform(-0.3, 0.3, 2) * (focal > 1.2 * width)
        K = np.tile(
            np.array([[focal, 0, width * (0.5 + off[0])], [0, focal, height * (0.5 + off[1])], [0, 0, 1]], np.float32),
            (views, 1, 1),
        )
        if rng.random() < 0.2:
            K[:, :2, :2] *= rng.uniform(0.9, 1.1, (views, 1, 1))
        return K.astype(np.float32)

    def _usable(self, depth: Array) -> bool:
        """No camera inside or against an object, and something other than sky in view."""
        solid = depth < 1e20
        if solid.mean(axis=(1, 2)).min() < 0.35:
            return False
        medians = np.array([np.median(d[s]) for d, s in zip(depth, solid, strict=True)])
        return bool(depth.min() > 0.08 and (depth.min(axis=(1, 2)) > 0.12 * medians).all() and medians.max() < 6 * medians.min())

    def _camera_errors(self, T_world_cam: Array, K: Array, reach: float) -> Array:
        """Perturb cameras as much as structure from motion does."""
        rng, out = self.rng, T_world_cam.copy()
        sigma = self.config.camera_noise_px * rng.exponential(1.0)
        for i in range(len(out)):
            error = rng.normal(0, sigma / K[i, 0, 0], 3)
            out[i, :3, :3] = out[i, :3, :3] @ _euler(error[0], error[1], error[2]).astype(np.float32)
            out[i, :3, 3] += rng.normal(0, 0.3 * sigma / K[i, 0, 0] * reach, 3)
        return out

    def _range(self, depth: Array) -> Array:
        """Depth ranges as sparse points would give them: percentiles with margins, sometimes cut short."""
        rng, out = self.rng, np.empty((len(depth), 2), np.float32)
        near_margin, far_margin = rng.uniform(0.45, 0.97), math.exp(rng.uniform(0.03, 1.0))
        top = 90 if rng.random() < 0.15 else 99
        for i, d in enumerate(depth):
            solid = d[d < 1e20]
            low, high = np.percentile(solid, (1, top))
            out[i] = low * near_margin, max(high * far_margin, low * 1.5)
        return out


def _look(forward: Array, roll: float) -> Array:
    """Camera-to-world rotation that looks along ``forward`` with the image's down towards +y."""
    z = forward / np.linalg.norm(forward)
    x = np.cross(np.array([0, 1.0, 0]), z)
    x = x / max(np.linalg.norm(x), 1e-6)
    return np.stack([x, np.cross(z, x), z], axis=1) @ _euler(0.0, 0.0, roll)
