"""The rectangle a network sees, and how photos of any shape are put on it.

Input: photo sizes, photos, intrinsics. Output: a canvas whose sides are multiples of 14, and the way back.
Does not: crop. Photos of one shape fill the canvas; where shapes differ, smaller ones are centred with a border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .layers.patch_vit import PATCH

BORDER = 1.0
"""Grey level of the border: white."""


def first_size(width: int, height: int, long_side: int) -> tuple[int, int]:
    """Scale a size so that its longer side is ``long_side``."""
    longest = max(width, height)
    return max(1, round(width * long_side / longest)), max(1, round(height * long_side / longest))


def network_size(width: int, height: int, long_side: int) -> tuple[int, int]:
    """Find the (width, height) a network takes: longer side ``long_side``, then each side to the nearest multiple of 14.

    The second step changes the aspect ratio by a few per cent at most; intrinsics follow with a factor per axis.
    """
    return tuple(max(PATCH, (side + PATCH // 2) // PATCH * PATCH) for side in first_size(width, height, long_side))  # type: ignore[return-value]


def resize_photo(image: Float[Tensor, "H W 3"], width: int, height: int, *, long_side: int | None = None) -> Float[Tensor, "h w 3"]:
    """Resize by area when shrinking and by cubic interpolation when enlarging, as DA3's own preparation does.

    Args:
        long_side: also go through ``first_size`` of it, which two-step preparation does; None goes straight.
    """
    pixels = image.numpy()
    if long_side is not None and max(pixels.shape[:2]) != long_side:
        pixels = _resized(pixels, *first_size(pixels.shape[1], pixels.shape[0], long_side), long_side > max(pixels.shape[:2]))
    if pixels.shape[:2] != (height, width):
        pixels = _resized(pixels, width, height, width > pixels.shape[1] or height > pixels.shape[0])
    return torch.from_numpy(pixels).clamp(0.0, 1.0)


def _resized(pixels, width: int, height: int, larger: bool):
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC if larger else cv2.INTER_AREA)


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """Where each photo lies."""

    width: int
    height: int
    contents: tuple[tuple[int, int], ...]
    """(width, height) of each photo on the canvas."""

    def offset(self, index: int) -> tuple[int, int]:
        """Left and top border of a photo."""
        width, height = self.contents[index]
        return (self.width - width) // 2, (self.height - height) // 2

    def place(self, image: Float[Tensor, "h w 3"], index: int) -> Float[Tensor, "3 H W"]:
        """Put a photo of its content size on the canvas."""
        left, top = self.offset(index)
        placed = image.new_full((3, self.height, self.width), BORDER)
        placed[:, top : top + image.shape[0], left : left + image.shape[1]] = image.permute(2, 0, 1)
        return placed

    def covered(self, index: int) -> Bool[Tensor, "H W"]:
        """Say which pixels of the canvas are photo."""
        left, top = self.offset(index)
        width, height = self.contents[index]
        mask = torch.zeros(self.height, self.width, dtype=torch.bool)
        mask[top : top + height, left : left + width] = True
        return mask

    def cut(self, maps: Float[Tensor, "H W"], index: int) -> Float[Tensor, "h w"]:
        """Take a photo's part out of a map of the canvas."""
        left, top = self.offset(index)
        width, height = self.contents[index]
        return maps[top : top + height, left : left + width]

    def shift_intrinsics(self, K: Float[Tensor, "3 3"], index: int, *, onto: bool) -> Float[Tensor, "3 3"]:
        """Move the principal point from the photo's frame onto the canvas, or back."""
        left, top = self.offset(index)
        moved, sign = K.clone(), 1 if onto else -1
        moved[0, 2] += sign * left
        moved[1, 2] += sign * top
        return moved


def lay_out(sizes: Sequence[tuple[int, int]], long_side: int) -> Canvas:
    """Choose the canvas for photos of the given (width, height)."""
    contents = tuple(network_size(width, height, long_side) for width, height in sizes)
    return Canvas(width=max(w for w, _ in contents), height=max(h for _, h in contents), contents=contents)
