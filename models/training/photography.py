"""What a hand-held camera does to a clean picture: blur, exposure, white balance, vignetting, noise, compression.

Input: clean images of one capture. Output: images as photos would have them. Does not: move cameras.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from .ingredients import WorldConfig

__all__ = ["defocused", "photograph", "smeared"]

Array = np.ndarray
SMEAR_SHARE = 0.6
"""Photos of a shaky capture that are smeared."""
LEAST_BLUR = 0.7
"""Standard deviation of the weakest of the three blurs that defocus blends, pixels; each is about twice the one before."""


def photograph(
    images: Float[Array, "V H W 3"],
    rng: np.random.Generator,
    *,
    config: WorldConfig | None = None,
    depth: Float[Array, "V h w"] | None = None,
) -> Float[Array, "V H W 3"]:
    """Imitate one camera: settings shared by a capture, drift from photo to photo.

    Args:
        config: shares of smeared and defocused captures; None for the usual ones.
        depth: z-depth at the centres of square blocks of pixels, for defocus; None leaves it out.
    """
    config = config or WorldConfig()
    views, height, width, _ = images.shape
    if rng.random() < config.motion_blur:
        images = smeared(images, rng)
    if rng.random() < config.defocus and depth is not None:
        images = defocused(images, depth, rng)
    drift = rng.exponential(0.08)
    gain = np.exp(rng.normal(0, drift, (views, 1, 1, 1)) + rng.normal(0, 0.3 * drift, (views, 1, 1, 3)))
    gamma = math.exp(rng.normal(0, 0.2))
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    vignette = 1 - rng.uniform(0, 0.2) * (x * x + y * y)[..., None]
    out = np.clip(images * (gain * vignette).astype(np.float32), 1e-4, 1) ** np.float32(gamma)
    if rng.random() < 0.35:
        amount = np.float32(rng.uniform(0.3, 1.0))
        for axis in (1, 2):
            out = _softened(out, axis, 1, amount)
    out = out + rng.standard_normal(out.shape, dtype=np.float32) * np.float32(rng.exponential(0.008))
    if rng.random() < 0.4:
        out = _compress(out, rng.uniform(0.01, 0.06))
    return np.clip(out, 0, 1)


def smeared(images: Float[Array, "V H W 3"], rng: np.random.Generator) -> Float[Array, "V H W 3"]:
    """Some photos as the mean of copies of themselves along a short straight line: the camera shook while the shutter was open."""
    out = images.copy()
    height, width = images.shape[1:3]
    for index in np.flatnonzero(rng.random(len(images)) < SMEAR_SHARE):
        length, angle = math.exp(rng.uniform(math.log(1.5), math.log(7.0))) * height / 240, rng.uniform(0, math.pi)
        steps = np.linspace(-0.5, 0.5, max(2, math.ceil(length) + 1))
        shifts = np.rint(steps[:, None] * length * np.array([math.sin(angle), math.cos(angle)])).astype(int)
        margin = int(np.abs(shifts).max())
        padded = np.pad(images[index], ((margin, margin), (margin, margin), (0, 0)), mode="edge")
        copies = [padded[margin + dy : margin + dy + height, margin + dx : margin + dx + width] for dy, dx in shifts]
        out[index] = np.mean(copies, axis=0, dtype=np.float32)
    return out


def defocused(images: Float[Array, "V H W 3"], depth: Float[Array, "V h w"], rng: np.random.Generator) -> Float[Array, "V H W 3"]:
    """Sharp at one distance; elsewhere the blur grows with the difference of the inverse depths, as a thin lens's does."""
    height, width = images.shape[1:3]
    inverse = np.where(depth < 1e20, 1.0 / depth, 0.0).astype(np.float32)
    cell = -(-height // depth.shape[1])
    inverse = inverse.repeat(cell, axis=1).repeat(cell, axis=2)[:, :height, :width]
    focus = np.percentile(inverse, rng.uniform(20, 90))
    blur_px = rng.uniform(1.0, 4.0) * height / 240 * np.abs(inverse - focus) / max(float(focus), 1e-6)
    level = np.where(blur_px < LEAST_BLUR, blur_px / LEAST_BLUR, 1 + np.log2(np.maximum(blur_px, LEAST_BLUR) / LEAST_BLUR))
    out, softer = images, images
    for step in range(3):
        softer = _softened(_softened(softer, 1, 2**step, np.float32(1)), 2, 2**step, np.float32(1))
        share = np.clip(level - step, 0, 1)[..., None].astype(np.float32)
        out = out + share * (softer - out)
    return out


def _softened(images: Array, axis: int, step: int, amount: np.float32) -> Array:
    """Blend with the neighbours ``step`` pixels away by (1/4, 1/2, 1/4) along one axis."""
    padded = np.pad(images, [(step, step) if a == axis else (0, 0) for a in range(4)], mode="edge")
    whole = [slice(None)] * 4
    low, high = whole.copy(), whole.copy()
    low[axis], high[axis] = slice(0, images.shape[axis]), slice(2 * step, None)
    return images + amount * (padded[tuple(low)] + padded[tuple(high)] - 2 * images) / 4


def _compress(images: Array, step: float) -> Array:
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
