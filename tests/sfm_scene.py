"""A small room of textured walls and boxes, photographed by a lens with known distortion: photos with the whole truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 320, 240
FOCAL_PX = 300.0
DISTORTION = np.array([-0.12, 0.02, 0.0, 0.0])
"""OpenCV k1 k2 p1 p2 of the lens."""


@dataclass(frozen=True)
class Truth:
    """Cameras of the written photos."""

    paths: list[Path]
    T_world_cam: np.ndarray
    """V 4 4."""
    K: np.ndarray
    """3 3, centres at +0.5."""


def _texture(generator: np.random.Generator, side: int = 512) -> np.ndarray:
    """Blobs at several scales: something SIFT finds everywhere."""
    image = np.full((side, side, 3), 0.5, np.float32)
    for cells, strength in ((16, 0.25), (48, 0.3), (128, 0.3)):
        coarse = generator.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        image += strength * cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 1)


def _quads(generator: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """(origin, edge u, edge v, texture) of every rectangle: back wall, floor, and three faces of two boxes."""
    shapes = [((-4, -3, 6), (8, 0, 0), (0, 4.5, 0)), ((-4, 1.5, 0), (8, 0, 0), (0, 0, 6))]
    for x, y, z, s in ((-1.4, 0.1, 3.2, 1.2), (0.5, 0.4, 2.6, 1.0)):
        shapes += [((x, y, z), (s, 0, 0), (0, s, 0)), ((x, y, z), (s, 0, 0), (0, 0, s)), ((x, y, z), (0, 0, s), (0, s, 0))]
        shapes += [((x + s, y, z), (0, 0, s), (0, s, 0))]
    return [(*(np.array(part, float) for part in shape), _texture(generator)) for shape in shapes]


def look_at(center: np.ndarray, target: np.ndarray) -> np.ndarray:
    """T_world_cam of an upright camera at ``center`` looking at ``target``; the world's down is +y."""
    z = (target - center) / np.linalg.norm(target - center)
    x = np.cross(np.array([0.0, 1.0, 0.0]), z)
    x /= np.linalg.norm(x)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = np.stack([x, np.cross(z, x), z], axis=1), center
    return T


def _render(T: np.ndarray, K: np.ndarray, quads: list, over: int = 2) -> np.ndarray:
    """Trace one ray per sub-pixel through the distorting lens."""
    grid = np.stack(np.meshgrid(np.arange(WIDTH * over), np.arange(HEIGHT * over)), -1).reshape(-1, 2)
    pixels = ((grid + 0.5) / over).astype(np.float64)
    K_opencv = K.copy()
    K_opencv[:2, 2] -= 0.5
    flat = cv2.undistortPoints((pixels - 0.5)[:, None], K_opencv, DISTORTION).reshape(-1, 2)
    rays = np.concatenate([flat, np.ones((len(flat), 1))], 1) @ T[:3, :3].T
    nearest = np.full(len(rays), np.inf)
    color = np.zeros((len(rays), 3), np.float32)
    for origin, u, v, texture in quads:
        normal = np.cross(u, v)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = ((origin - T[:3, 3]) @ normal) / (rays @ normal)
        hit = T[:3, 3] + rays * distance[:, None] - origin
        a, b = hit @ u / (u @ u), hit @ v / (v @ v)
        inside = (distance > 0) & (distance < nearest) & (a >= 0) & (a <= 1) & (b >= 0) & (b <= 1)
        side = texture.shape[0] - 1
        where = [np.where(inside, c * side, 0).astype(np.float32).reshape(HEIGHT * over, WIDTH * over) for c in (a, b)]
        taken = cv2.remap(texture, *where, cv2.INTER_LINEAR).reshape(-1, 3)
        color[inside], nearest[inside] = taken[inside], distance[inside]
    image = color.reshape(HEIGHT, over, WIDTH, over, 3).mean((1, 3))
    return (image * 255).round().astype(np.uint8)


def write_room_photos(folder: Path, count: int = 6, *, seed: int = 3) -> Truth:
    """Photograph the room from an arc of ``count`` places and save PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    quads = _quads(np.random.default_rng(seed))
    K = np.array([[FOCAL_PX, 0, WIDTH / 2], [0, FOCAL_PX, HEIGHT / 2], [0, 0, 1.0]])
    paths, poses = [], []
    for i in range(count):
        side = -1.5 + 3.0 * i / max(1, count - 1)
        T = look_at(np.array([side, -0.6 - 0.25 * (i % 2), -0.6 + 0.12 * side**2]), np.array([0.1 * side, 0.3, 4.0]))
        paths.append(folder / f"room_{i}.png")
        Image.fromarray(_render(T, K, quads)).save(paths[-1])
        poses.append(T)
    return Truth(paths=paths, T_world_cam=np.stack(poses), K=K)
