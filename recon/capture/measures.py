"""What a look at the pixels says about a photo: sharpness, exposure, likeness.

Input: pixels of one photo. Output: numbers. Does not: judge them; ``capture.check`` does.
"""

from __future__ import annotations

import numpy as np

LIKENESS_SIZE = (32, 24)
"""Width and height of the small grey picture that two photos are compared by."""
BLUR_TAPS = 9
DARK, BRIGHT = 6, 250
"""Grey levels beyond which a pixel says nothing about its colour."""


def grey(pixels: np.ndarray) -> np.ndarray:
    """Luma of uint8 ``H W 3`` as float32 ``H W``, 0 to 255 (ITU-R BT.601)."""
    return pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def blur(luma: np.ndarray) -> float:
    """How little a picture changes when it is blurred again: 0 sharp, 1 without detail.

    A sharp picture loses much of its pixel-to-pixel variation under a moving average, a blurred one little; the ratio does not
    depend on contrast. Source: Crete et al., "The blur effect", SPIE HVEI 2007, equations 1 to 6.
    """
    worst = 0.0
    for axis in (0, 1):
        if luma.shape[axis] <= BLUR_TAPS:
            continue
        summed = np.cumsum(luma, axis=axis, dtype=np.float64)
        lag = np.take(summed, np.arange(BLUR_TAPS, luma.shape[axis]), axis) - np.take(
            summed, np.arange(luma.shape[axis] - BLUR_TAPS), axis
        )
        smooth = np.abs(np.diff(lag / BLUR_TAPS, axis=axis))
        middle = BLUR_TAPS // 2 + 1
        own = np.abs(np.diff(np.take(luma, np.arange(middle, middle + lag.shape[axis]), axis), axis=axis))
        total = float(own.sum(dtype=np.float64))
        lost = float(np.maximum(own - smooth, 0).sum(dtype=np.float64))
        worst = max(worst, 1.0 - lost / total if total > 0 else 1.0)
    return worst


def exposure(luma: np.ndarray) -> dict[str, float]:
    """Mean grey level in [0, 1], shares of pixels that are nearly black and nearly white, and contrast (standard deviation)."""
    return {
        "mean": float(luma.mean()) / 255.0,
        "contrast": float(luma.std()) / 255.0,
        "dark": float((luma <= DARK).mean()),
        "bright": float((luma >= BRIGHT).mean()),
    }


def likeness_key(luma: np.ndarray) -> np.ndarray:
    """The picture as a small grey one, uint8 ``24 32``: block means on a fixed grid."""
    width, height = LIKENESS_SIZE
    rows = np.linspace(0, luma.shape[0], height + 1).astype(int)
    columns = np.linspace(0, luma.shape[1], width + 1).astype(int)
    small = np.add.reduceat(luma, np.minimum(rows[:-1], luma.shape[0] - 1), axis=0)
    small = np.add.reduceat(small, np.minimum(columns[:-1], luma.shape[1] - 1), axis=1)
    count = np.maximum(np.diff(rows), 1)[:, None] * np.maximum(np.diff(columns), 1)[None]
    return np.clip(small / count, 0, 255).round().astype(np.uint8)
