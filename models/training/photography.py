"""What a hand-held camera does to a clean picture: exposure, white balance, vignetting, blur, noise, compression.

Input: clean images of one capture. Output: images as photos would have them. Does not: move cameras.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

__all__ = ["photograph"]


def photograph(images: Float[np.ndarray, "V H W 3"], rng: np.random.Generator) -> Float[np.ndarray, "V H W 3"]:
    """Imitate one camera: settings shared by a capture, drift from photo to photo."""
    views, height, width, _ = images.shape
    drift = rng.exponential(0.08)
    gain = np.exp(rng.normal(0, drift, (views, 1, 1, 1)) + rng.normal(0, 0.3 * drift, (views, 1, 1, 3)))
    gamma = math.exp(rng.normal(0, 0.2))
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    vignette = 1 - rng.uniform(0, 0.2) * (x * x + y * y)[..., None]
    out = np.clip(images * (gain * vignette).astype(np.float32), 1e-4, 1) ** np.float32(gamma)
    if rng.random() < 0.35:
        amount = np.float32(rng.uniform(0.3, 1.0))
        for axis in (1, 2):
            padded = np.pad(out, [(1, 1) if a == axis else (0, 0) for a in range(4)], mode="edge")
            low, high = np.take(padded, range(out.shape[axis]), axis), np.take(padded, range(2, out.shape[axis] + 2), axis)
            out = out + amount * (low + high - 2 * out) / 4
    out = out + rng.standard_normal(out.shape, dtype=np.float32) * np.float32(rng.exponential(0.008))
    if rng.random() < 0.4:
        out = _compress(out, rng.uniform(0.01, 0.06))
    return np.clip(out, 0, 1)


def _compress(images: np.ndarray, step: float) -> np.ndarray:
    """Quantise 8 x 8 cosine blocks, coarser at high frequencies, as JPEG does."""
    n = np.arange(8)
    basis = np.sqrt(2 / 8) * np.cos(np.pi * (2 * n[None] + 1) * n[:, None] / 16)
    basis[0] = math.sqrt(1 / 8)
    basis = basis.astype(np.float32)
    views, height, width, _ = images.shape
    blocks = images.reshape(views, height // 8, 8, width // 8, 8, 3).transpose(0, 1, 3, 5, 2, 4)
    quantum = np.float32(step) * (1 + 0.5 * (n[:, None] + n[None])).astype(np.float32)
    coefficients = np.rint(basis @ blocks @ basis.T / quantum) * quantum
    return np.ascontiguousarray((basis.T @ coefficients @ basis).transpose(0, 1, 4, 2, 5, 3)).reshape(images.shape)
