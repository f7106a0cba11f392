"""Sizes photos are worked at.

Input: sizes in pixels. Output: sizes in pixels. Does not: touch pixels.
"""

from __future__ import annotations

SMALLEST_SIDE = 16
"""Photos whose shorter side has fewer pixels are skipped."""


def working_size(width: int, height: int, long_side: int) -> tuple[int, int]:
    """Size whose longest side is ``long_side`` pixels; photos are never enlarged."""
    scale = min(1.0, long_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
