"""Textures of procedural worlds: packed photographs, and generated ones.

Input: a pack, or a random generator. Output: uint8 pictures of one size.
Does not: read image formats; ``data/pack_training.py`` does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

__all__ = ["generated_textures", "load_textures", "whole_pictures"]

Array = np.ndarray


def load_textures(path: Path) -> UInt8[Array, "T S S 3"]:
    """Read the pack that ``data/pack_training.py`` or ``data/pack_textures.py`` writes."""
    with np.load(path) as pack:
        return pack["textures"] if "textures" in pack else whole_pictures(pack["differences"])


def whole_pictures(differences: UInt8[Array, "T 3 H W"]) -> UInt8[Array, "T H W 3"]:
    """Pictures from what ``data.pack_textures.differences`` makes of them, exactly."""
    pictures = np.moveaxis(np.cumsum(differences, axis=3, dtype=np.uint8), 1, 3).copy()
    pictures[..., ::2] += pictures[..., 1:2]
    return pictures


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
