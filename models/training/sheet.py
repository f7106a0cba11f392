"""Contact sheets of procedural worlds: what the training sees, to be looked at.

Input: ``Capture`` records. Output: one picture. Does not: write files, or draw letters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from .worlds import Capture

Array = np.ndarray

GAP = 4
"""Pixels between pictures."""
SKY = 1e20
"""Depth from which a pixel shows the sky."""


def contact_sheet(captures: Sequence[Capture]) -> UInt8[Array, "H W 3"]:
    """Lay captures out one a row: their photos, then exact depth and normals of the first photo.

    Args:
        captures: of one number of views and one size.

    Raises:
        ValueError: they differ in views or size, there are none, or one lacks normals.
    """
    shapes = {capture.images.shape for capture in captures}
    if len(shapes) != 1:
        raise ValueError(f"contact sheet: wanted captures of one shape, got {sorted(shapes)}")
    rows = []
    for capture in captures:
        if capture.normals is None:
            raise ValueError("contact sheet: wanted captures with normals, as Worlds makes them")
        depth, normals = (enlarged(one, *capture.images.shape[1:3]) for one in (capture.depth[2][0], capture.normals[0]))
        pictures = [*capture.images, depth_picture(depth, capture.depth_range[0]), normal_picture(normals)]
        rows.append(_beside([np.clip(picture, 0, 1) for picture in pictures], axis=1))
    return (_beside(rows, axis=0) * 255).round().astype(np.uint8)


def _beside(pictures: Sequence[Array], axis: int) -> Array:
    """Join pictures with white gaps."""
    parts: list[Array] = []
    for picture in pictures:
        gap = list(picture.shape)
        gap[axis] = GAP
        parts += [picture, np.ones(gap, picture.dtype)]
    return np.concatenate(parts[:-1], axis=axis)


def depth_picture(depth: Float[Array, "H W"], near_far: Float[Array, " 2"]) -> Float[Array, "H W 3"]:
    """Inverse depth from blue (far) over green to red (near); the sky is white."""
    near, far = (float(value) for value in near_far)
    share = np.clip((1.0 / depth - 1.0 / far) / max(1.0 / near - 1.0 / far, 1e-12), 0.0, 1.0)
    ramp = np.stack([np.clip(2 * share - 0.5, 0, 1), 1 - np.abs(2 * share - 1), np.clip(1.5 - 2 * share, 0, 1)], axis=-1)
    return np.where((depth < SKY)[..., None], ramp, 1.0)


def normal_picture(normals: Float[Array, "H W 3"]) -> Float[Array, "H W 3"]:
    """Surface normals in the camera frame as colours: to the left red, up green, towards the camera blue; the sky is white."""
    return np.where(normals.any(axis=-1, keepdims=True), 0.5 - 0.5 * normals, 1.0)


def enlarged(small: Float[Array, "h w ..."], height: int, width: int) -> Float[Array, "H W ..."]:
    """Every value repeated over its block of pixels."""
    return small[np.arange(height)[:, None] * small.shape[0] // height, np.arange(width) * small.shape[1] // width]
